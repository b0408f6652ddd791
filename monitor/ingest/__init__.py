"""`awry ingest`: an HTTP receiver that puts what gateways push into Kafka, or into the spool."""
