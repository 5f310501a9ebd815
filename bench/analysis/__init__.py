"""One finished run, read once: results, comparison groups, tests, claims, warnings."""
