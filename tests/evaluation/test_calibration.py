import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from mnist_lightning.evaluation.calibration import (
    BINS,
    KEY,
    MIN_THRESHOLD,
    Calibration,
    calibrate,
    confidence,
    expected_calibration_error,
    fit_temperature,
    from_checkpoint,
    reliability_bins,
    unsure_threshold,
)


def overconfident(count: int, factor: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits `factor` times too large, and labels drawn with the probabilities of the correct ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(count, 10))
    gumbel = random.gumbel(size=logits.shape)  # the largest of logits + Gumbel noise is a draw from their softmax
    return torch.from_numpy(factor * logits).float(), torch.from_numpy((logits + gumbel).argmax(axis=1))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_has_the_lowest_cross_entropy_of_a_fine_grid(factor: float) -> None:
    logits, labels = overconfident(500, factor)
    grid = np.geomspace(0.1, 10, 2001)  # steps of 0.23 %
    rows = np.arange(len(labels))
    losses = [-log_softmax(logits.double().numpy() / t)[rows, labels.numpy()].mean() for t in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(losses)], rel=0.0024)


def test_the_temperature_corrects_overconfident_logits() -> None:
    logits, labels = overconfident(20_000, factor=2.5)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)  # sampling error: about 1 / sqrt(20,000)
    before, after = (
        expected_calibration_error(reliability_bins(*confidence(logits, labels, temperature)))
        for temperature in (1.0, fit_temperature(logits, labels))
    )
    assert before > 0.1
    assert after < 0.02


def test_without_an_error_there_is_nothing_to_fit() -> None:
    logits = torch.eye(10)
    assert calibrate(logits, torch.arange(10)) == Calibration(temperature=1.0, unsure_below=MIN_THRESHOLD)


def test_the_temperature_stays_in_its_range_if_every_prediction_is_incorrect() -> None:
    logits = torch.eye(10)
    assert fit_temperature(logits, torch.arange(10).roll(1)) == pytest.approx(10, rel=1e-4)


def test_the_expected_calibration_error_equals_that_of_torchmetrics() -> None:
    logits, labels = overconfident(1000, factor=2)
    expected = multiclass_calibration_error(logits.double(), labels, num_classes=10, n_bins=15, norm="l1")
    assert BINS == 15
    error = expected_calibration_error(reliability_bins(*confidence(logits, labels)))
    assert error == pytest.approx(float(expected), abs=1e-6), "torchmetrics computes in float32"


def test_a_bin_includes_its_upper_edge() -> None:
    confidences = torch.tensor([1 / 15, 1 / 15 + 1e-9, 1.0, 14.5 / 15], dtype=torch.float64)
    bins = reliability_bins(confidences, torch.tensor([True, False, True, False]))
    assert [(place, each.count) for place, each in enumerate(bins) if each.count] == [(0, 1), (1, 1), (14, 2)]
    assert bins[14].accuracy == 0.5
    assert bins[14].confidence == pytest.approx((1 + 14.5 / 15) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_costs_least_if_an_error_costs_ten_unsure_predictions(seed: int) -> None:
    random = np.random.default_rng(seed)
    confidences = np.round(random.uniform(0.5, 1, 200), 2)  # many are equal
    correct = random.uniform(size=200) < confidences**0.5

    def cost(threshold: float) -> float:
        unsure = confidences < threshold
        return 10 * float((~correct & ~unsure).sum()) + float(unsure.sum())

    least = min(cost(threshold) for threshold in np.arange(0.5, 1.02, 0.005))
    found = unsure_threshold(torch.from_numpy(confidences), torch.from_numpy(correct))
    assert 0.5 < found < 1
    assert cost(found) == least


def test_a_network_that_is_never_correct_is_never_sure() -> None:
    assert unsure_threshold(torch.tensor([0.6, 0.9]).double(), torch.tensor([False, False])) == 1.0


def test_the_calibration_is_read_from_a_checkpoint() -> None:
    assert from_checkpoint({KEY: {"temperature": 1.5, "unsure_below": 0.9}}) == Calibration(1.5, 0.9)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        3,
        {},
        {"temperature": 1.0},
        {"temperature": 1.0, "unsure_below": 0.9, "more": 1},
        {"temperature": 0.0, "unsure_below": 0.9},
        {"temperature": math.nan, "unsure_below": 0.9},
        {"temperature": math.inf, "unsure_below": 0.9},
        {"temperature": "1", "unsure_below": 0.9},
        {"temperature": 1.0, "unsure_below": 1.1},
    ],
)
def test_an_invalid_calibration_in_a_checkpoint_is_ignored(stored: Any) -> None:
    assert from_checkpoint({KEY: stored}) is None
