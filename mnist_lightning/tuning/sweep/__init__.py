"""The command `sweep`: a search by Optuna."""
