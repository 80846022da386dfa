"""Optimizers and learning-rate schedules that torch does not have."""
