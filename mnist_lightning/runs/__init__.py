"""Run folders on disk: newest, best, last, manifest, and checkpoints that verify. No Lightning."""
