"""The command `predict`: labels for images and rows."""
