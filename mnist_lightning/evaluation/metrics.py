"""Loss and accuracy: the metric that sums them up over batches and ranks, and the score with its interval."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class Score:
    """Loss and accuracy of an evaluation."""

    loss: float  # mean cross-entropy, in nats
    correct: int  # predictions
    total: int  # samples, at least 1

    @property
    def accuracy(self) -> float:
        """The (micro) accuracy, a fraction in [0, 1].

        >>> Score(loss=0.1, correct=99, total=100).accuracy
        0.99
        """
        return self.correct / self.total

    def __str__(self) -> str:
        """Return the score for people.

        >>> print(Score(loss=0.0213, correct=9930, total=10_000))
        accuracy 9930/10000 = 99.30 % (95 % interval 99.12 to 99.45), loss 0.0213
        """
        return f"accuracy {describe_accuracy(self.correct, self.total)}, loss {self.loss:.4f}"


class LossAndAccuracy(Metric):
    """Sum the loss and count the correct predictions over batches and ranks.

    The counts are integers, so the accuracy is exact whatever the batch size and the number of ranks. Nothing waits for
    the device until `compute` is called.
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

    def compute(self) -> dict[str, Tensor]:
        """Return loss, acc, correct and total over all ranks; nothing if there was no sample."""
        if not (total := self.total.item()):
            return {}
        loss, accuracy = (value.cpu().double() / total for value in (self.loss_sum, self.correct))
        return {"loss": loss, "acc": accuracy, "correct": self.correct, "total": self.total}


def describe_accuracy(correct: int, total: int) -> str:
    """Return an accuracy with its interval for people.

    >>> describe_accuracy(9, 10)
    '9/10 = 90.00 % (95 % interval 59.58 to 98.21)'
    """
    low, high = wilson_interval(correct, total)
    return f"{correct}/{total} = {100 * correct / total:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion: Wilson (1927), "Probable inference", JASA 22, p. 209.

    >>> tuple(round(bound, 4) for bound in wilson_interval(9, 10))
    (0.5958, 0.9821)
    """
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    centre = (correct + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(correct * (total - correct) / total + z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
