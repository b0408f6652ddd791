"""`awry study transfer --family`: directions mapped between real models that were not trained for it."""
