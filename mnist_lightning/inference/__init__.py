"""Using a trained network: torch, no Lightning."""
