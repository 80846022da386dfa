"""Counts behind every loss and accuracy we report."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Score:
    """How a set of images was answered.

    Args:
        loss: Mean cross-entropy, in nats.
        correct: Images answered right.
        total: Images asked.
    """

    loss: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """The (micro) accuracy, a fraction in [0, 1].

        >>> Score(loss=0.1, correct=99, total=100).accuracy
        0.99
        """
        return self.correct / self.total


class LossAndAccuracy(Metric):
    """Sum the loss and count the correct answers over batches, and over processes.

    Whole numbers, so accuracy is exact whatever the batches and the number of processes; nothing waits for the device
    until the score is asked for.
    """

    full_state_update = False
    loss_sum: Tensor
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), logits (B, classes) and labels int64 (B,)."""
        self.loss_sum += loss * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.total += len(labels)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums over all processes: loss, correct, total."""
        return self.loss_sum, self.correct, self.total

    def score(self) -> Score:
        """Return the score of everything counted since the last `reset`, at least one image.

        Raises:
            ZeroDivisionError: If nothing was counted, which only a checkpoint that was tampered with leads to.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torchmetrics', where all was counted before a resumption
            loss_sum, correct, total = self.compute()
        if not total:
            raise ZeroDivisionError("an epoch has ended in which no image was counted")
        return Score(loss=loss_sum.item() / total.item(), correct=int(correct), total=int(total))
