"""MetricsWriter: the results of `validate` and `test` of a model or of data that know nothing of this project."""

import json
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.runs.checkpoint_verification import sha256


class MetricsWriter(Callback):
    """Print the metrics that a model logs; write those of `test` into `test_metrics.json` beside its run.

    Args:
        path: The checkpoint that is scored.
        folder: Where the file goes; it exists.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.file = path, folder / "test_metrics.json"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics."""
        self._print(trainer, pl_module, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and write the metrics."""
        metrics = self._print(trainer, pl_module, "test")
        if trainer.is_global_zero:
            result = {"metrics": metrics, "checkpoint": str(self.path), "checkpoint_sha256": sha256(self.path)}
            replace_file(self.file, f"{json.dumps(result, indent=1)}\n".encode())
        pl_module.print(f"wrote {self.file}")

    def _print(self, trainer: Trainer, pl_module: LightningModule, split: str) -> dict[str, float]:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        pl_module.print(f"{self.path}: {split} " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        return metrics
