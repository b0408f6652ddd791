"""awry for a notebook."""
