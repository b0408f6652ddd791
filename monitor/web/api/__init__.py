"""The HTTP API: what the tables say of alerts, and what people do with them, for programs that hold a token."""
