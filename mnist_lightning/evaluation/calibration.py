"""How far a network's probabilities can be believed: how calibrated they are, and what mends and judges them.

Pure functions on logits and labels. What is fitted here is fitted on validation images, and travels in the checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEY = "calibration"  # of a checkpoint
BINS = 15  # of Guo et al. 2017
WARMEST = 10.0  # a temperature lies between the inverse of this and this
BISECTIONS = 20  # leave an interval of a few millionths
SURE_ACCURACY = 0.9  # an answer less likely right than this is worth a second look
LEAST_UNSURE_BELOW = 0.5  # by its own account, such an answer is more likely wrong than right


@dataclass(frozen=True)
class Calibration:
    """What to make of a network's logits.

    Args:
        temperature: What to divide them by before the softmax, positive.
        unsure_below: The probability after that division, in [0, 1], below which an answer counts as unsure.
    """

    temperature: float
    unsure_below: float


UNCALIBRATED = Calibration(temperature=1.0, unsure_below=0.9)  # a network that was trained without validation


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies in one of the equal parts of [0, 1].

    Args:
        count: How many; where there are none, the means are 0.
        confidence: Their mean probability.
        accuracy: The share of them that is right.
    """

    count: int
    confidence: float
    accuracy: float


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit to validation images: logits float (N, classes) and labels int64 (N,), on the processor."""
    temperature = fit_temperature(logits, labels)
    confidences, correct = judge(logits, labels, temperature)
    return Calibration(temperature, unsure_threshold(confidences, correct))


def judge(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return float64 (N,), the probability of each answer, and bool (N,), whether it is right."""
    confidences, predictions = (logits.double() / temperature).softmax(dim=1).max(dim=1)
    return confidences, predictions == labels


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return what to divide logits by for the least cross-entropy: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    The cross-entropy is convex in the inverse temperature, so its slope is bisected. Where every image is answered
    right, no temperature is the best (the lower the better), and the answer is 1.

    Args:
        logits: float (N, classes).
        labels: int64 (N,).

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> round(fit_temperature(logits, torch.tensor([0, 0, 1, 1])), 4)  # of four answers three are right: 2 / ln 3
    1.8205
    """
    if (logits.argmax(dim=1) == labels).all():
        return 1.0
    logits = logits.double()
    at_labels = logits.gather(1, labels[:, None]).mean()
    low, high = -math.log(WARMEST), math.log(WARMEST)  # of the logarithm of the inverse temperature
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        slope = ((logits * math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean() - at_labels
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def unsure_threshold(confidences: Tensor, correct: Tensor) -> float:
    """Return the probability below which fewer than nine answers in ten are right, at least 0.5.

    More exactly: where the isotonic regression of being right on the probability passes `SURE_ACCURACY`. It is at once
    the threshold of least cost when a wrong answer costs as much as ten unsure ones: Chow 1970, "On optimum
    recognition error and reject tradeoff", IEEE Transactions on Information Theory 16, p. 41.

    Args:
        confidences: float64 (N,), probabilities of the answers, at least one.
        correct: bool (N,), whether they are right.
    """
    confidences, order = confidences.sort()
    gain = (SURE_ACCURACY - correct[order].double()).cumsum(dim=0)  # of calling an answer and all below it unsure
    last = len(confidences) - 1
    ends = torch.cat(
        [torch.nonzero(confidences.diff() > 0).flatten(), torch.tensor([last])]
    )  # equal ones stay together
    end = int(ends[gain[ends].argmax()])
    if gain[end] <= 0:
        return LEAST_UNSURE_BELOW
    if end == last:
        return 1.0
    return max(LEAST_UNSURE_BELOW, float(confidences[end : end + 2].mean()))


def reliability(confidences: Tensor, correct: Tensor) -> list[Bin]:
    """Return what became of the answers in each of `BINS` equal parts (a, b] of [0, 1].

    Args:
        confidences: float64 (N,), probabilities of the answers.
        correct: bool (N,), whether they are right.
    """
    place = (confidences * BINS).ceil().long().clamp(1, BINS) - 1
    counts = place.bincount(minlength=BINS)
    sums = (place.bincount(weights, minlength=BINS) for weights in (confidences.double(), correct.double()))
    means = ((total / counts.clamp(min=1)).tolist() for total in sums)
    return [Bin(*values) for values in zip(counts.tolist(), *means, strict=True)]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of probability and accuracy over all answers, in [0, 1]: Guo et al. 2017, equation 3.

    >>> round(expected_calibration_error([Bin(3, 0.7, 1.0), Bin(1, 0.9, 0.0)]), 9)
    0.45
    """
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / total


def from_checkpoint(checkpoint: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration that a checkpoint holds; None where it was saved without validation, or holds none."""
    held: Any = checkpoint.get(KEY)
    if not isinstance(held, dict) or not all(isinstance(value, float) for value in held.values()):
        return None
    try:
        calibration = Calibration(**held)
    except TypeError:  # other names
        return None
    fits = 0 < calibration.temperature < math.inf and 0 <= calibration.unsure_below <= 1
    return calibration if fits else None
