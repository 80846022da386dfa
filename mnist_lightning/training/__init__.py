"""The LightningModule and what watches it."""
