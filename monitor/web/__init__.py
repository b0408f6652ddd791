"""`awry serve`: authentication, the HTTP API and the page on one address."""
