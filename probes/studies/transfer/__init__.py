"""`awry study transfer`: directions mapped between models by ridge regression (arXiv 2606.20225)."""
