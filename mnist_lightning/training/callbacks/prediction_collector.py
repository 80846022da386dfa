"""Collects the predictions of an evaluation over its batches and over the processes of a distributed run."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.evaluation.predictions import Predictions


class PredictionCollector:
    """Keep the logits that an evaluation computes, so that no second pass is needed."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor]] = []

    def add(self, outputs: Any, batch: Any) -> None:
        """Keep the outputs of a step and the labels of its batch, on their device, if they are logits (B, classes)."""
        if isinstance(outputs, Tensor) and outputs.ndim == 2:
            self._batches.append((outputs, batch[1]))

    def collected(self) -> tuple[Tensor, Tensor]:
        """Return the logits (N, classes) and labels (N,) of this process, and start over."""
        batches, self._batches = self._batches, []
        if not batches:
            return torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        logits, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return logits.float(), labels

    def gather(self, trainer: Trainer, loader: Any) -> Predictions:
        """Return the predictions of all ranks, and start over; each rank calls this once after an evaluation.

        Args:
            trainer: Its strategy reduces over the ranks; its data module knows the number of classes.
            loader: The `BatchLoader` that served the samples, in file order.
        """
        device, count = trainer.strategy.root_device, len(loader.dataset)
        logits = torch.zeros(count, len(schema_of(trainer).class_names), device=device)
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        seen = torch.zeros_like(labels)
        own_logits, own_labels = self.collected()
        if len(own_labels):
            places = loader.positions()[: len(own_labels)].to(device)
            logits[places], labels[places], seen[places] = own_logits, own_labels, 1
        # Each sample is evaluated on one rank and is zero on the others, so the sum is exact.
        logits, labels, seen = (
            trainer.strategy.reduce(values, reduce_op="sum").cpu() for values in (logits, labels, seen)
        )
        chosen = seen.bool()
        return Predictions(logits[chosen], labels[chosen], loader.dataset.indices.cpu()[chosen])


def is_of_this_project(trainer: Trainer) -> bool:
    """Return whether the evaluated samples are those of a data module of this project, whose places are known."""
    loader = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    return isinstance(getattr(trainer, "datamodule", None), ClassificationDataModule) and isinstance(
        loader, BatchLoader
    )


def schema_of(trainer: Trainer) -> Any:
    """Return the schema of the trainer's data: an `ImageSchema` or a `TableSchema`."""
    return trainer.datamodule.schema  # type: ignore[attr-defined]  # set by Lightning's connector
