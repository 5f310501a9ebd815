"""One factor at a time: suites, their tables and figures."""
