"""What tests of `awry ingest` share."""
