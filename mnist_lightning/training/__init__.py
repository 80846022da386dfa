"""One training run: the LightningModule, its Trainer, logger and checkpoints. No command line."""
