"""`awry study safety-heads`: Ships and Sahara with their controls (arXiv 2410.13708)."""
