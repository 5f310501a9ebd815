"""APF (ACM MM 2020): a gradient made at the end, transferred in the cloud, which never sees the photo."""
