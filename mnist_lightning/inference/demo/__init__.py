"""The command `demo`: a local page to draw a digit on."""
