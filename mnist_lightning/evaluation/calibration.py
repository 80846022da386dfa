"""Calibration of a network's probabilities: temperature scaling, expected calibration error, unsure predictions.

Pure functions of logits and labels. A calibration is fitted to validation samples and stored in the checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEY = "calibration"  # in a checkpoint
BINS = 15  # as in Guo et al. 2017
MAX_TEMPERATURE = 10.0  # temperatures are searched between the inverse of this and this
BISECTIONS = 20  # leave an interval of a few millionths
TARGET_ACCURACY = 0.9  # a prediction with a lower probability of being correct deserves a second look
MIN_THRESHOLD = 0.5  # a prediction below this is more likely incorrect than correct


@dataclass(frozen=True)
class Calibration:
    """How to turn a network's logits into calibrated probabilities."""

    temperature: float  # divisor of the logits before the softmax, positive
    unsure_below: float  # calibrated probability, in [0, 1], below which a prediction counts as unsure


UNCALIBRATED = Calibration(temperature=1.0, unsure_below=0.9)  # for a network that was trained without validation


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence lies in one of the equal intervals of [0, 1]; without any, the means are 0."""

    count: int
    confidence: float  # the mean
    accuracy: float  # the fraction that is correct


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """Fit to validation samples: logits float (N, classes) and labels int64 (N,), on the CPU."""
    temperature = fit_temperature(logits, labels)
    confidences, correct = confidence(logits, labels, temperature)
    return Calibration(temperature, unsure_threshold(confidences, correct))


def confidence(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return float64 (N,), the probability of each prediction, and bool (N,), whether it is correct."""
    confidences, predictions = (logits.double() / temperature).softmax(dim=1).max(dim=1)
    return confidences, predictions == labels


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the lowest cross-entropy: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    The cross-entropy is convex in the inverse temperature, so its slope is bisected. If every prediction is correct,
    there is no minimum (the lower the temperature, the better), and the result is 1.

    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> round(fit_temperature(logits, torch.tensor([0, 0, 1, 1])), 4)  # 3 of 4 are correct: 2 / ln 3
    1.8205
    """
    if (logits.argmax(dim=1) == labels).all():
        return 1.0
    logits = logits.double()
    at_labels = logits.gather(1, labels[:, None]).mean()
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)  # logarithm of the inverse temperature
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        slope = ((logits * math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean() - at_labels
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def unsure_threshold(confidences: Tensor, correct: Tensor) -> float:
    """Return the confidence below which fewer than nine in ten predictions are correct, at least 0.5.

    More precisely: where the isotonic regression of correctness on confidence crosses `TARGET_ACCURACY`. It is also the
    threshold of lowest cost if an incorrect prediction costs as much as ten unsure ones: Chow 1970, "On optimum
    recognition error and reject tradeoff", IEEE Transactions on Information Theory 16, p. 41. Arguments are what
    `confidence` returns for at least one prediction.
    """
    confidences, order = confidences.sort()
    gain = (TARGET_ACCURACY - correct[order].double()).cumsum(dim=0)  # of counting it and all below as unsure
    last = len(confidences) - 1
    ties_end = torch.nonzero(confidences.diff() > 0).flatten()  # equal confidences stay together
    ends = torch.cat([ties_end, torch.tensor([last])])
    end = int(ends[gain[ends].argmax()])
    if gain[end] <= 0:
        return MIN_THRESHOLD
    if end == last:
        return 1.0
    return max(MIN_THRESHOLD, float(confidences[end : end + 2].mean()))


def reliability_bins(confidences: Tensor, correct: Tensor) -> list[Bin]:
    """Return accuracy and mean confidence of the predictions in each of `BINS` equal intervals (a, b] of [0, 1]."""
    place = (confidences * BINS).ceil().long().clamp(1, BINS) - 1
    counts = place.bincount(minlength=BINS)
    sums = (place.bincount(weights, minlength=BINS) for weights in (confidences.double(), correct.double()))
    means = ((total / counts.clamp(min=1)).tolist() for total in sums)
    return [Bin(*values) for values in zip(counts.tolist(), *means, strict=True)]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean gap between confidence and accuracy, weighted by count, in [0, 1]: Guo et al. 2017, equation 3.

    >>> round(expected_calibration_error([Bin(3, 0.7, 1.0), Bin(1, 0.9, 0.0)]), 9)
    0.45
    """
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins) / total


def from_checkpoint(checkpoint: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration stored in a checkpoint; None if it is missing, as without validation, or invalid."""
    try:
        calibration = Calibration(**checkpoint[KEY])
        is_valid = 0 < calibration.temperature < math.inf and 0 <= calibration.unsure_below <= 1
    except (KeyError, TypeError, RuntimeError):  # missing, or other fields or types, tensors included
        return None
    return calibration if is_valid else None
