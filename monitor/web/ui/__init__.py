"""The page of `awry serve`: open alerts, live scores, one message, the probes. Rendered on the server, for browsers
with or without JavaScript."""
