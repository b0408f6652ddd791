"""Commands that run until they are stopped: the worker, the sender, the page, a replay, Kafka, the demos."""
