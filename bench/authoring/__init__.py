"""For plugin authors: contract checks, fakes, and the scaffold of a new plugin."""
