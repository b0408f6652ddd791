"""A Hugging Face model as awry uses it: loading, built-in weights, adapters, layout."""
