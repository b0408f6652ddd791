"""Reading activations: sites, batches of token ids, aggregation over tokens."""
