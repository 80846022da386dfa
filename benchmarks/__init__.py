"""The commands behind the published figures; each prints a table and writes a JSON file on request."""
