"""The HTTP API, for programs: read alerts, messages, probes and deliveries; act on alerts and silences."""
