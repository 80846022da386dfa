"""A folder of images for each class: indexing, decoding once, and its data module."""
