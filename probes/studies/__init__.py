"""Studies: measurements with their controls, each from one command, each written as JSON with a table."""
