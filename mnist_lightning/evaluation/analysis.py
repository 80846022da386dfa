"""What a test's predictions show: per-class metrics, most confused classes, highest losses and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_lightning.evaluation.calibration import (
    BINS,
    Bin,
    Calibration,
    confidence,
    expected_calibration_error,
    reliability_bins,
)
from mnist_lightning.evaluation.predictions import Predictions

MOST_CONFUSED = 10  # pairs listed
WORST_SAMPLES = 24  # samples listed and shown


@dataclass(frozen=True)
class ClassMetrics:
    """Precision and recall of a class."""

    name: str
    support: int  # samples of the class
    precision: float | None  # fraction of the predictions of this class that are correct; None if it was not predicted
    recall: float | None  # fraction of the samples of this class that were predicted correctly; None without samples


@dataclass(frozen=True)
class ConfusedPair:
    """How many samples of the class `label` were predicted as the class `prediction`."""

    label: str
    prediction: str
    count: int


@dataclass(frozen=True)
class WorstSample:
    """A sample with one of the highest losses."""

    index: int  # its position in the file
    label: str  # name of its class
    prediction: str  # name of the predicted class
    probability: float  # of the prediction, before calibration, in [0, 1]


@dataclass(frozen=True)
class CalibrationMetrics:
    """How reliable the probabilities are, before and after temperature scaling."""

    bins: int  # of the expected calibration error (ECE)
    ece: float  # before temperature scaling, in [0, 1]
    temperature: float | None = None  # fitted to validation samples; this and the rest is None without validation
    calibrated_ece: float | None = None  # after temperature scaling
    unsure_below: float | None = None  # calibrated probability below which a prediction counts as unsure
    sure: int | None = None  # predictions that are not unsure
    sure_correct: int | None = None  # how many of these are correct


@dataclass(frozen=True)
class Analysis:
    """What a test's predictions show."""

    classes: list[ClassMetrics]  # in the order of the labels
    confusion: Tensor  # int64 (classes, classes), number of samples by label (rows) and predicted class (columns)
    most_confused: list[ConfusedPair]  # the pairs of classes with the most errors, the most frequent first
    worst_samples: list[WorstSample]  # those with the highest loss, the highest first
    calibration: CalibrationMetrics
    reliability: dict[str, list[Bin]]  # bins of the reliability diagram, by the name of the panel

    def to_dict(self, noun: str) -> dict[str, Any]:
        """Return what `test.json` stores; `noun` is "images" or "rows"."""
        names = {"support": noun, "index": "row" if noun == "rows" else "index"}

        def as_dicts(entries: Sequence[Any]) -> list[dict[str, Any]]:
            return [{names.get(name, name): value for name, value in vars(entry).items()} for entry in entries]

        return {
            "classes": as_dicts(self.classes),
            "confusion": self.confusion.tolist(),
            "most_confused": as_dicts(self.most_confused),
            f"worst_{noun}": as_dicts(self.worst_samples),
            "calibration": vars(self.calibration),
        }


def analyse(predictions: Predictions, class_names: tuple[str, ...], calibration: Calibration | None) -> Analysis:
    """Analyse at least one prediction; `calibration` is None for a network that was trained without validation."""
    confusion = confusion_matrix(predictions, len(class_names))
    bins = reliability_bins(*confidence(predictions.logits, predictions.labels))
    reliability = {"Before calibration": bins}
    metrics = CalibrationMetrics(BINS, expected_calibration_error(bins))
    if calibration:
        confidences, correct = confidence(predictions.logits, predictions.labels, calibration.temperature)
        bins = reliability_bins(confidences, correct)
        reliability[f"After temperature scaling (T = {calibration.temperature:.3f})"] = bins
        sure = confidences >= calibration.unsure_below
        metrics = replace(
            metrics,
            temperature=calibration.temperature,
            calibrated_ece=expected_calibration_error(bins),
            unsure_below=calibration.unsure_below,
            sure=int(sure.sum()),
            sure_correct=int(correct[sure].sum()),
        )
    return Analysis(
        class_metrics(confusion, class_names),
        confusion,
        most_confused(confusion, class_names),
        worst_samples(predictions, class_names),
        metrics,
        reliability,
    )


def confusion_matrix(predictions: Predictions, num_classes: int) -> Tensor:
    """Return int64 (classes, classes), number of samples by label (rows) and predicted class (columns)."""
    matrix: Tensor = multiclass_confusion_matrix(predictions.predicted, predictions.labels, num_classes)
    return matrix


def class_metrics(confusion: Tensor, class_names: tuple[str, ...]) -> list[ClassMetrics]:
    """Return precision and recall of each class."""
    columns = (counts.tolist() for counts in (confusion.diag(), confusion.sum(dim=1), confusion.sum(dim=0)))
    return [
        ClassMetrics(name, support, hits / predicted if predicted else None, hits / support if support else None)
        for name, hits, support, predicted in zip(class_names, *columns, strict=True)
    ]


def most_confused(confusion: Tensor, class_names: tuple[str, ...]) -> list[ConfusedPair]:
    """Return the pairs of (label, predicted class) with the most errors; ties keep the order of the labels."""
    errors = confusion - confusion.diag().diag()
    counts, places = errors.flatten().sort(descending=True, stable=True)
    return [
        ConfusedPair(class_names[place // len(class_names)], class_names[place % len(class_names)], count)
        for count, place in zip(counts[:MOST_CONFUSED].tolist(), places[:MOST_CONFUSED].tolist(), strict=True)
        if count
    ]


def worst_samples(predictions: Predictions, class_names: tuple[str, ...]) -> list[WorstSample]:
    """Return the samples with the highest cross-entropy, the highest first; ties keep file order."""
    losses = F.cross_entropy(predictions.logits.double(), predictions.labels, reduction="none")
    worst = losses.sort(descending=True, stable=True).indices[:WORST_SAMPLES]
    probabilities, _ = confidence(predictions.logits[worst], predictions.labels[worst])
    columns = (predictions.indices[worst], predictions.labels[worst], predictions.predicted[worst], probabilities)
    return [
        WorstSample(index, class_names[label], class_names[prediction], probability)
        for index, label, prediction, probability in zip(*(column.tolist() for column in columns), strict=True)
    ]
