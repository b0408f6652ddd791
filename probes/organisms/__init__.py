"""Model organisms: fine-tunes of a small chat model that go wrong on purpose, their data and their judges."""
