"""Another attack called pgd; it never gets as far as being imported."""

raise RuntimeError("names are compared before anything is imported")
