"""What a network answered to each image of a set, collected over an evaluation and over processes."""

from dataclasses import dataclass

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.data.loader import BatchLoader


@dataclass(frozen=True)
class Answers:
    """The answers to N images, in the order of their file, on the processor.

    Args:
        logits: float32 (N, classes).
        labels: int64 (N,).
        indices: int64 (N,), the place of each image in its file, ascending.
    """

    logits: Tensor
    labels: Tensor
    indices: Tensor

    @property
    def predictions(self) -> Tensor:
        """The classes answered, int64 (N,)."""
        return self.logits.argmax(dim=1)


class AnswerCollector:
    """Keep the logits that an evaluation computes anyway, so that no second pass is needed."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor]] = []

    def clear(self) -> None:
        """Forget what was collected."""
        self._batches.clear()

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Keep a batch, where it is: logits (B, classes) and labels int64 (B,)."""
        self._batches.append((logits, labels))

    def gather(self, trainer: Trainer, loader: BatchLoader) -> Answers:
        """Return the answers of all processes; each calls this once after an evaluation.

        Args:
            trainer: How the processes speak to each other, and how many classes there are.
            loader: What served the images, in the order of their file.
        """
        device, count = trainer.strategy.root_device, len(loader.indices)
        logits = torch.zeros(count, len(schema_of(trainer).class_names), device=device)
        labels = torch.zeros(count, dtype=torch.int64, device=device)
        answered = torch.zeros_like(labels)
        if self._batches:
            batch_logits, batch_labels = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
            places = torch.searchsorted(loader.indices, loader.order())[: len(batch_labels)].to(device)
            logits[places], labels[places], answered[places] = batch_logits.float(), batch_labels, 1
        # One process answers an image; it is zero on the others.
        logits, labels, answered = (
            trainer.strategy.reduce(part, reduce_op="sum").cpu() for part in (logits, labels, answered)
        )
        chosen = answered.bool()
        return Answers(logits[chosen], labels[chosen], loader.indices[chosen])


def schema_of(trainer: Trainer) -> ImageSchema:
    """Return what the trainer's data are."""
    schema: ImageSchema = trainer.datamodule.schema  # type: ignore[attr-defined]  # set by Lightning's connector
    return schema
