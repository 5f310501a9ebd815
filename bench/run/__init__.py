"""From a matrix to decisions on disk: specification, keys, store, stages, pipeline, the run folder."""
