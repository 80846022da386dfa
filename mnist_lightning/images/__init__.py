"""People's image files, read safely, and resizing them. No torch, no digits."""
