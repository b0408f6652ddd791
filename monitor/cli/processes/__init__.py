"""Commands that run until they are stopped: the worker, the sender, the web pages, a replay, Kafka, the demos."""
