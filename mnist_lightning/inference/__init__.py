"""Using a trained network: predict, export and the demo. No Lightning."""
