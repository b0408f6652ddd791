"""Questions to the tables, by what they are about."""
