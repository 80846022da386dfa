import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_precision,
    multiclass_recall,
)

from mnist_lightning.evaluation.analysis import WORST_IMAGES, score_card
from mnist_lightning.evaluation.calibration import Calibration
from mnist_lightning.evaluation.predictions import Predictions

NAMES = tuple("abcdefg")


@pytest.fixture
def answers() -> Predictions:
    """Random answers to 200 images of the classes a to f, half of them right; the network knows a g too."""
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 7)), random.integers(0, 6, 200)
    logits[np.arange(200), labels] += 1.5
    return Predictions(torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.arange(200) * 3 + 1)


def test_confusion_precision_and_recall_are_those_of_torchmetrics(answers: Predictions) -> None:
    card = score_card(answers, NAMES, None)
    given = answers.logits, answers.labels, 7
    assert card.confusion == multiclass_confusion_matrix(*given).tolist()
    precision, recall = (
        metric(*given, average="none").tolist() for metric in (multiclass_precision, multiclass_recall)
    )
    assert [score.precision for score in card.classes] == pytest.approx(precision)
    assert [score.recall for score in card.classes[:6]] == pytest.approx(recall[:6])
    assert card.classes[6].recall is None, "no image of g"
    assert [score.images for score in card.classes] == np.bincount(answers.labels.numpy(), minlength=7).tolist()


def test_a_class_that_is_never_answered_has_no_precision() -> None:
    answers = Predictions(torch.eye(3)[[0, 0]], torch.tensor([0, 1]), torch.arange(2))
    first, second, third = score_card(answers, ("a", "b", "c"), None).classes
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert (second.precision, second.recall) == (None, 0.0)
    assert (third.precision, third.recall) == (None, None)


def test_the_most_confused_pairs_come_first(answers: Predictions) -> None:
    card = score_card(answers, NAMES, None)
    labels, predictions = answers.labels.numpy(), answers.logits.numpy().argmax(axis=1)
    for pair in card.most_confused:
        label, prediction = NAMES.index(pair.label), NAMES.index(pair.prediction)
        assert label != prediction
        assert pair.count == ((labels == label) & (predictions == prediction)).sum()
    counts = [pair.count for pair in card.most_confused]
    errors = np.array(card.confusion)
    np.fill_diagonal(errors, 0)
    assert counts == sorted(errors.ravel(), reverse=True)[: len(counts)]


def test_without_a_mistake_no_pair_is_confused() -> None:
    answers = Predictions(torch.eye(3), torch.arange(3), torch.arange(3))
    assert score_card(answers, ("a", "b", "c"), None).most_confused == []


def test_the_worst_images_have_the_highest_cross_entropy(answers: Predictions) -> None:
    worst = score_card(answers, NAMES, None).worst_images
    losses = F.cross_entropy(answers.logits, answers.labels, reduction="none").numpy()
    places = np.argsort(-losses)[:WORST_IMAGES]
    assert [image.index for image in worst] == (3 * places + 1).tolist()
    probabilities = torch.softmax(answers.logits, dim=1).numpy()[places]
    assert [NAMES.index(image.label) for image in worst] == answers.labels.numpy()[places].tolist()
    assert [NAMES.index(image.prediction) for image in worst] == probabilities.argmax(axis=1).tolist()
    assert [image.probability for image in worst] == pytest.approx(probabilities.max(axis=1), abs=1e-6)


def test_the_calibration_of_validation_images_is_applied_to_the_answers(answers: Predictions) -> None:
    score = score_card(answers, NAMES, Calibration(temperature=2.0, unsure_below=0.4)).calibration
    confidences, predictions = torch.softmax(answers.logits.double() / 2, dim=1).max(dim=1)
    sure = confidences >= 0.4
    assert score.sure == int(sure.sum())
    assert score.sure_correct == int((predictions == answers.labels)[sure].sum())
    assert 0 < score.sure_correct < score.sure < 200
    assert score.ece == score_card(answers, NAMES, None).calibration.ece
    assert score.calibrated_ece not in (None, score.ece)
    assert (score.temperature, score.unsure_below) == (2.0, 0.4)
