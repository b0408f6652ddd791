"""The planted-heads study: which method finds heads that are known to carry a behaviour."""
