"""Searching for good options: many runs of `fit`, which Optuna chooses."""
