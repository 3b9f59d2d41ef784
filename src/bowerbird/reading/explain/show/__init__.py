"""A reading on paper: the terminal, Markdown, one HTML page."""
