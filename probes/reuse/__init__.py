"""Tokens that were read before are not read again: equal messages, messages within others, and shared beginnings.

`tree` remembers which beginnings came, `kept` holds what the model made of them, `prefix` hands that to a forward pass,
`sequences` reads a list of token sequences with it, `check` compares the result with plain reading at start.
"""
