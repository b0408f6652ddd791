"""`awry study heads`: HSI with its controls (arXiv 2502.05945)."""
