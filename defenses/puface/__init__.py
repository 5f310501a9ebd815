"""PuFace (arXiv 2406.02253): a purifier trained on amplified cloaks."""
