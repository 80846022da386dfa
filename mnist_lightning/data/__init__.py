"""From bytes to batches: data modules, loader, augmentation and splits. No networks."""
