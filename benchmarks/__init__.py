"""Timings of awry beside the bare model and beside research code; nothing here is part of the product."""
