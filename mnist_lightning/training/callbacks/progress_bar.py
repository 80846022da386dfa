"""RunProgressBar: Lightning's tqdm bar without metrics, which have a line of their own."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks


class RunProgressBar(lightning_callbacks.TQDMProgressBar):
    """Show the progress of an epoch or of an evaluation; the arguments are Lightning's."""

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar; Lightning's own drops what is printed before there is a bar."""
        try:
            self.train_progress_bar  # noqa: B018  # raises if there is none
        except TypeError:
            print(*args, sep=sep, **kwargs)
        else:
            super().print(*args, sep=sep, **kwargs)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return nothing: the metrics of an epoch have a line of their own."""
        return {}
