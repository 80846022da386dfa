"""The numbers of a test result: what was right, what was taken for what, and how far probabilities can be believed."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from mnist_lightning.evaluation.calibration import BINS, Calibration, expected_calibration_error, judge, reliability
from mnist_lightning.evaluation.metrics import Score
from mnist_lightning.evaluation.predictions import Predictions

MOST_CONFUSED = 10  # pairs listed
WORST_IMAGES = 24  # images listed, and shown


@dataclass(frozen=True)
class ClassScore:
    """How a class fared.

    Args:
        name: Its name.
        images: Images of it.
        precision: Share of the answers that name it that are right; None where no answer does.
        recall: Share of its images that are answered right; None where it has no image.
    """

    name: str
    images: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """How many images of a class were taken for another."""

    label: str
    prediction: str
    count: int


@dataclass(frozen=True)
class WorstImage:
    """An image whose own class was given a very low probability.

    Args:
        index: Its place in the file.
        label: Name of its class.
        prediction: Name of the class answered.
        probability: Probability of that answer, as the network gives it, in [0, 1].
    """

    index: int
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class CalibrationScore:
    """How far probabilities can be believed, and what a calibration fitted to validation images makes of them.

    Args:
        bins: Equal parts of [0, 1] that errors are averaged over.
        ece: Expected calibration error of the probabilities as they are, in [0, 1].
        temperature: What logits are divided by; None, like all below, where there was no validation.
        calibrated_ece: The same error after that division.
        unsure_below: Probability, after that division, below which an answer counts as unsure.
        sure: Predictions that are not.
        sure_correct: How many of these are right.
    """

    bins: int
    ece: float
    temperature: float | None = None
    calibrated_ece: float | None = None
    unsure_below: float | None = None
    sure: int | None = None
    sure_correct: int | None = None


@dataclass(frozen=True)
class ScoreCard:
    """The numbers of a test result.

    Args:
        classes: One entry a class, in the order of the labels.
        confusion: Images by label (rows) and answer (columns), in the same order.
        most_confused: The pairs with the most images, the most first.
        worst_images: The images with the least probability for their own class, the worst first.
        calibration: How far the probabilities can be believed.
    """

    classes: list[ClassScore]
    confusion: list[list[int]]
    most_confused: list[ConfusedPair]
    worst_images: list[WorstImage]
    calibration: CalibrationScore


def score_card(answers: Predictions, class_names: tuple[str, ...], calibration: Calibration | None) -> ScoreCard:
    """Return the numbers for at least one answer."""
    confusion = confusion_matrix(answers.labels, answers.predicted, len(class_names))
    return ScoreCard(
        class_scores(confusion, class_names),
        confusion.tolist(),
        most_confused(confusion, class_names),
        worst_images(answers, class_names),
        calibration_score(answers, calibration),
    )


def confusion_matrix(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Return int64 (classes, classes), images by label (rows) and answer (columns).

    Args:
        labels: int64 (N,).
        predictions: int64 (N,).
        classes: How many.
    """
    return (labels * classes + predictions).bincount(minlength=classes**2).view(classes, classes)


def class_scores(confusion: Tensor, class_names: tuple[str, ...]) -> list[ClassScore]:
    """Return precision and recall of each class."""
    right, images, answers = (counts.tolist() for counts in (confusion.diag(), confusion.sum(dim=1), confusion.sum(0)))
    return [
        ClassScore(name, total, hits / named if named else None, hits / total if total else None)
        for name, hits, total, named in zip(class_names, right, images, answers, strict=True)
    ]


def most_confused(confusion: Tensor, class_names: tuple[str, ...]) -> list[ConfusedPair]:
    """Return the pairs of classes most often taken for each other in this direction, of equals the first first."""
    errors = confusion - confusion.diag().diag()
    counts, places = errors.flatten().sort(descending=True, stable=True)
    return [
        ConfusedPair(class_names[place // len(class_names)], class_names[place % len(class_names)], count)
        for count, place in zip(counts[:MOST_CONFUSED].tolist(), places[:MOST_CONFUSED].tolist(), strict=True)
        if count
    ]


def worst_images(answers: Predictions, class_names: tuple[str, ...]) -> list[WorstImage]:
    """Return the images with the highest cross-entropy, the worst first, of equals the first first."""
    losses = F.cross_entropy(answers.logits.double(), answers.labels, reduction="none")
    worst = losses.sort(descending=True, stable=True).indices[:WORST_IMAGES]
    probabilities, _ = judge(answers.logits[worst], answers.labels[worst])
    columns = (answers.indices[worst], answers.labels[worst], answers.predicted[worst], probabilities)
    return [
        WorstImage(index, class_names[label], class_names[prediction], probability)
        for index, label, prediction, probability in zip(*(column.tolist() for column in columns), strict=True)
    ]


def calibration_score(answers: Predictions, calibration: Calibration | None) -> CalibrationScore:
    """Return the error of the probabilities as they are and, where there is a calibration, after it."""
    ece = expected_calibration_error(reliability(*judge(answers.logits, answers.labels)))
    if calibration is None:
        return CalibrationScore(BINS, ece)
    confidences, correct = judge(answers.logits, answers.labels, calibration.temperature)
    sure = confidences >= calibration.unsure_below
    return CalibrationScore(
        BINS,
        ece,
        temperature=calibration.temperature,
        calibrated_ece=expected_calibration_error(reliability(confidences, correct)),
        unsure_below=calibration.unsure_below,
        sure=int(sure.sum()),
        sure_correct=int(correct[sure].sum()),
    )


def describe(score: Score) -> str:
    """Return a score in words.

    >>> describe(Score(loss=0.0213, correct=9930, total=10_000))
    'accuracy 9930/10000 = 99.30 % (95 % interval 99.12 to 99.45), loss 0.0213'
    """
    return f"accuracy {describe_share(score.correct, score.total)}, loss {score.loss:.4f}"


def describe_share(correct: int, total: int) -> str:
    """Return an accuracy in words.

    >>> describe_share(9, 10)
    '9/10 = 90.00 % (95 % interval 59.58 to 98.21)'
    """
    low, high = wilson_interval(correct, total)
    return f"{correct}/{total} = {100 * correct / total:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion: Wilson (1927), "Probable inference", JASA 22, p. 209.

    Args:
        correct: Successes, in [0, total].
        total: Trials, at least 1.

    >>> tuple(round(bound, 4) for bound in wilson_interval(9, 10))
    (0.5958, 0.9821)
    """
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    centre = (correct + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(correct * (total - correct) / total + z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)
