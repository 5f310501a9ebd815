"""A package outside the project that brings its own methods, found by their entry points."""
