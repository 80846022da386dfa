"""MNIST and its family: IDX files, where they come from, and their data module."""
