"""Where messages come from and where lines go: the wire format, sources and sinks."""
