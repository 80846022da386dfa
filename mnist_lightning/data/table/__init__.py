"""CSV tables: reading, encoding, and their data module."""
