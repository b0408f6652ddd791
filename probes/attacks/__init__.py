"""Attacks on awry's own detectors: families of transformations of a message, and what is still flagged under them."""
