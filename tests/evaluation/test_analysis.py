import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_precision,
    multiclass_recall,
)

from mnist_lightning.evaluation.analysis import WORST_SAMPLES, analyse
from mnist_lightning.evaluation.calibration import Calibration
from mnist_lightning.evaluation.predictions import Predictions

NAMES = tuple("abcdefg")


@pytest.fixture
def predictions() -> Predictions:
    """Random predictions for 200 images of the classes a to f, half of them correct; the network also has a class g."""
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 7)), random.integers(0, 6, 200)
    logits[np.arange(200), labels] += 1.5
    return Predictions(torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.arange(200) * 3 + 1)


def test_confusion_precision_and_recall_match_numpy_and_torchmetrics(predictions: Predictions) -> None:
    analysis = analyse(predictions, NAMES, None)
    given = predictions.logits, predictions.labels, 7
    expected = np.zeros((7, 7), int)
    np.add.at(expected, (predictions.labels.numpy(), predictions.logits.numpy().argmax(axis=1)), 1)
    assert analysis.confusion.tolist() == expected.tolist()
    precision, recall = (
        metric(*given, average="none").tolist() for metric in (multiclass_precision, multiclass_recall)
    )
    assert [each.precision for each in analysis.classes] == pytest.approx(precision)
    assert [each.recall for each in analysis.classes[:6]] == pytest.approx(recall[:6])
    assert analysis.classes[6].recall is None, "no image of g"
    support = np.bincount(predictions.labels.numpy(), minlength=7)
    assert [each.support for each in analysis.classes] == support.tolist()


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    predictions = Predictions(torch.eye(3)[[0, 0]], torch.tensor([0, 1]), torch.arange(2))
    first, second, third = analyse(predictions, ("a", "b", "c"), None).classes
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert (second.precision, second.recall) == (None, 0.0)
    assert (third.precision, third.recall) == (None, None)


def test_the_most_confused_pairs_come_first(predictions: Predictions) -> None:
    analysis = analyse(predictions, NAMES, None)
    labels, predicted = predictions.labels.numpy(), predictions.logits.numpy().argmax(axis=1)
    for pair in analysis.most_confused:
        label, prediction = NAMES.index(pair.label), NAMES.index(pair.prediction)
        assert label != prediction
        assert pair.count == ((labels == label) & (predicted == prediction)).sum()
    counts = [pair.count for pair in analysis.most_confused]
    errors = analysis.confusion.numpy().copy()
    np.fill_diagonal(errors, 0)
    assert counts == sorted(errors.ravel(), reverse=True)[: len(counts)]


def test_without_an_error_no_pair_is_confused() -> None:
    predictions = Predictions(torch.eye(3), torch.arange(3), torch.arange(3))
    assert analyse(predictions, ("a", "b", "c"), None).most_confused == []


def test_the_worst_samples_have_the_highest_cross_entropy(predictions: Predictions) -> None:
    worst = analyse(predictions, NAMES, None).worst_samples
    losses = F.cross_entropy(predictions.logits, predictions.labels, reduction="none").numpy()
    places = np.argsort(-losses)[:WORST_SAMPLES]
    assert [image.index for image in worst] == (3 * places + 1).tolist()
    probabilities = torch.softmax(predictions.logits, dim=1).numpy()[places]
    assert [NAMES.index(image.label) for image in worst] == predictions.labels.numpy()[places].tolist()
    assert [NAMES.index(image.prediction) for image in worst] == probabilities.argmax(axis=1).tolist()
    assert [image.probability for image in worst] == pytest.approx(probabilities.max(axis=1), abs=1e-6)


def test_the_calibration_fitted_to_validation_images_is_applied_to_the_predictions(predictions: Predictions) -> None:
    score = analyse(predictions, NAMES, Calibration(temperature=2.0, unsure_below=0.4)).calibration
    confidences, predicted = torch.softmax(predictions.logits.double() / 2, dim=1).max(dim=1)
    sure = confidences >= 0.4
    assert score.sure == int(sure.sum())
    assert score.sure_correct == int((predicted == predictions.labels)[sure].sum())
    assert 0 < score.sure_correct < score.sure < 200
    assert score.ece == analyse(predictions, NAMES, None).calibration.ece
    assert score.calibrated_ece not in (None, score.ece)
    assert (score.temperature, score.unsure_below) == (2.0, 0.4)


def test_rows_and_images_are_stored_under_their_own_names(predictions: Predictions) -> None:
    analysis = analyse(predictions, NAMES, None)
    images, rows = (analysis.to_dict(noun) for noun in ("images", "rows"))
    assert list(images) == ["classes", "confusion", "most_confused", "worst_images", "calibration"]
    assert list(images["classes"][0]) == ["name", "images", "precision", "recall"]
    assert list(images["worst_images"][0]) == ["index", "label", "prediction", "probability"]
    assert list(rows["classes"][0]) == ["name", "rows", "precision", "recall"]
    assert list(rows["worst_rows"][0]) == ["row", "label", "prediction", "probability"]
