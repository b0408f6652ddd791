"""Attention heads: ablation, attribution (Ships, Sahara), steering by row, and the search of HSI."""
