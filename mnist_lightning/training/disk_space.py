"""Whether the disk has room for the checkpoints of a run."""

import math
import shutil
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

COPIES = 3  # best.ckpt, last.ckpt, and a file that is being written


def warn_of_full_disk(trainer: Trainer, pl_module: LightningModule, folder: Path, *, keep: float, every: int) -> None:
    """Warn before the first step if the checkpoints of a run may not fit on the disk; not if their number has no end.

    Early stopping may end the run before the disk is full, so it starts all the same. There is a checkpoint in the
    folder every so many epochs, and `keep` of them stay, besides the copies.
    """
    while not folder.exists():
        folder = folder.parent
    steps_of_epoch = max(1, -(-trainer.num_training_batches // trainer.accumulate_grad_batches))  # rounded up
    epochs = (trainer.estimated_stepping_batches - trainer.global_step) / steps_of_epoch
    free = shutil.disk_usage(folder).free
    needed = (min(keep, epochs / every) + COPIES) * _checkpoint_bytes(trainer, pl_module)
    if free < needed < math.inf:
        pl_module.print(
            f"{folder}: this run saves up to {needed / 1e9:,.3g} GB of checkpoints, but {free / 1e9:,.3g} GB are free; "
            "--checkpoint.keep best_last saves two"
        )


def _checkpoint_bytes(trainer: Trainer, pl_module: LightningModule) -> int:
    """Return the size of a checkpoint: that of the resumed one, or weights, their average and the optimizer's state."""
    if trainer.ckpt_path and Path(trainer.ckpt_path).is_file():  # the temporary one of a finder is gone
        return Path(trainer.ckpt_path).stat().st_size
    weights: int = sum(value.nbytes for value in pl_module.state_dict().values())
    averages = sum(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    states: int = sum(
        parameter.nbytes * (2 if "betas" in group else 1 if group.get("momentum", 1) else 0)
        for optimizer in trainer.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    return weights * (1 + averages) + states
