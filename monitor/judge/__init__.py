"""The judge: a language model that is asked about messages in the uncertain band of a probe."""
