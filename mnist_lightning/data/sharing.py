"""How a Trainer's processes share the batches of a loader, and where each makes its own."""

from typing import TypedDict

import torch
from lightning.pytorch import Trainer

from mnist_lightning.errors import ConfigError


class Share(TypedDict):
    """The arguments of a loader that a Trainer says."""

    rank: int
    world_size: int
    device: torch.device | str


def served_by(
    trainer: Trainer | None, count: int, batch_size: int, shuffle_seed: int | None, *, noun: str = "images"
) -> Share:
    """Return which share of a loader's batches this process serves, and where it makes them.

    Args:
        trainer: Who asks for the loader; None where a person does, by hand.
        count: Images or rows to serve, on all processes together.
        batch_size: How many a batch.
        shuffle_seed: None where they are scored: no process may then be without a batch.
        noun: What they are.

    Raises:
        ConfigError: If there are more processes than batches to score.
    """
    if trainer is None:
        return Share(rank=0, world_size=1, device="cpu")
    batches = -(-count // batch_size)
    if shuffle_seed is None and batches < trainer.world_size:
        raise ConfigError(
            f"{trainer.world_size} processes cannot share the {batches} batches of {batch_size} {noun} to be scored"
            f"; use --trainer.devices {batches}"
        )
    return Share(rank=trainer.global_rank, world_size=trainer.world_size, device=trainer.strategy.root_device)
