"""What data and weights are here, what is missing, and how to get it.

`catalogue` says what there is, `needs` what a run wants of it; `fetching` brings it into the data folder, with
`mirrors` and `downloads` under it, and `first_digests` where a publisher states no digest. `doctor` looks at all.
"""
