"""MNIST and related data sets: their files, where to get them, and their data module."""
