"""The rows of a finished run and their forms: CSV, Markdown, LaTeX, HTML, and tables made of them."""
