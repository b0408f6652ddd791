"""What the settings come to: each fault in them and in the files that they name, and the values that count."""
