"""What data and weights are here, what is missing, and how to get it."""
