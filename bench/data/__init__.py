"""Where files lie: the data folder, checkpoints, registered folders; what is in them is read elsewhere."""
