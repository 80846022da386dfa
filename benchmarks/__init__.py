"""The commands behind the README's numbers; each prints a table and writes JSON."""
