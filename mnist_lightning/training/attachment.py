"""What a module is attached to, and what of it a checkpoint may hold."""

from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor

HYPER_PARAMETERS = (LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the Trainer of a module; None before its first use, and in Fabric."""
    try:
        trainer: object = module.trainer
    except RuntimeError:
        return None
    return trainer if isinstance(trainer, Trainer) else None


def remove_objects(checkpoint: dict[str, Any]) -> None:
    """Remove hyper-parameters that are neither plain values nor tensors, such as a function given to a subclass.

    `load_from_checkpoint` then needs them as arguments; with them, it could not read the checkpoint.
    """
    for key in set(HYPER_PARAMETERS) & checkpoint.keys():
        checkpoint[key] = {name: value for name, value in checkpoint[key].items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)
