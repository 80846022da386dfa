"""Where a training puts its checkpoints, told to the program that started it."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class Witness(Callback):
    """Note the folder of the checkpoints, which names the run; None until training starts, or where it leaves none."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        dirpath = getattr(trainer.checkpoint_callback, "dirpath", None)
        self.folder = Path(dirpath) if dirpath else None
