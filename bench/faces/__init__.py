"""From a photo to aligned pixels, and back into the photo: no identities, no files of runs."""
