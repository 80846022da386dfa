"""A folder of images for each class: find them, decode them once, split them without duplicates across splits."""
