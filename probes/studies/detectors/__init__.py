"""Detection methods on the same rows: what each reads, at what false-positive rate, and what is left under attack."""
