"""ErasableMask (arXiv 2412.17038): a mask that its key takes off again."""
