"""The web pages of `awry serve`: open alerts, live scores, one message, the probes. Rendered on the server, with or
without JavaScript in the browser."""
