"""Networks in torch, and building one from a class path. They know nothing of data or training."""
