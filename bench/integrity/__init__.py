"""Is it true, and does it come out again? Audit, verify, rerun, consistency."""
