from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mnist_lightning import Classifier, Predictor
from mnist_lightning.errors import CheckpointError, ImageError
from mnist_lightning.inference.digits.preprocess import preprocess
from mnist_lightning.inference.predictor import ImageLike
from tests.conftest import DIGITS_MEAN, DIGITS_STD
from tests.inference.conftest import CALIBRATION, TrainedRun
from tests.inference.digits.drawn import mnist_images, on_paper

DIGITS = mnist_images(6)
PAGES = [on_paper(digit) for digit in DIGITS]


@pytest.fixture(scope="module")
def predictor(trained_run: TrainedRun) -> Predictor:
    return Predictor.from_run("best", trained_run.root)


@pytest.fixture(scope="module")
def expected(trained_run: TrainedRun) -> Tensor:
    """The probabilities (6, 10) of the network as Lightning loads it, with mean and std of its training file."""
    classifier = Classifier.load_from_checkpoint(trained_run.best, map_location="cpu", weights_only=True).eval()
    pixels = np.stack([preprocess(page).pixels for page in PAGES])
    with torch.inference_mode():
        logits: Tensor = classifier((torch.from_numpy(pixels)[:, None] / 255 - DIGITS_MEAN) / DIGITS_STD)
    return (logits / CALIBRATION.temperature).softmax(dim=1)


def test_a_prediction_contains_the_three_most_probable_classes(predictor: Predictor, expected: Tensor) -> None:
    for page, probabilities in zip(PAGES, expected, strict=True):
        prediction = predictor(page)
        top3 = probabilities.topk(3)
        assert [label for label, _ in prediction.top3] == [str(index) for index in top3.indices.tolist()]
        # Another memory layout sums in another order.
        assert [probability for _, probability in prediction.top3] == pytest.approx(top3.values.tolist(), abs=1e-5)
        assert prediction.label == str(prediction.index) == prediction.top3[0].label
        assert prediction.probability == prediction.top3[0].probability
        assert prediction.input is not None
        np.testing.assert_array_equal(prediction.input.pixels, preprocess(page).pixels)


def test_a_list_of_images_gets_the_same_predictions_as_each_image_alone(predictor: Predictor, expected: Tensor) -> None:
    together = predictor(PAGES)
    assert [prediction.index for prediction in together] == expected.argmax(dim=1).tolist()
    for page, prediction in zip(PAGES, together, strict=True):
        alone = predictor(page)
        assert alone.label == prediction.label
        assert alone.probability == pytest.approx(prediction.probability, abs=1e-5)
    assert predictor([]) == []


def test_an_image_of_any_type_gets_the_same_prediction(predictor: Predictor, tmp_path: Path) -> None:
    page = PAGES[0]
    image = Image.fromarray(page)
    image.save(tmp_path / "digit.png")
    grey = torch.from_numpy(page)
    forms: list[ImageLike] = [
        str(tmp_path / "digit.png"),
        tmp_path / "digit.png",
        image,
        image.convert("RGBA"),
        page,
        np.dstack([page] * 3),
        grey,
        grey[None],
        grey.expand(3, -1, -1),
        grey / 255,
        (grey / 255).double()[None].requires_grad_(),
    ]
    first, *others = predictor(forms)
    for other in others:
        assert other.input is not None
        assert first.input is not None
        np.testing.assert_array_equal(other.input.pixels, first.input.pixels)
        assert other.label == first.label
        assert other.probability == pytest.approx(first.probability, abs=1e-5)


def test_a_batch_of_mnist_is_labelled_without_looking_for_digits(predictor: Predictor) -> None:
    images = np.stack([DIGITS[0]] * 1001)  # more than go through the network at once
    predictions = predictor.predict_pixels(images)
    assert len(predictions) == 1001
    assert predictions == predictor.predict_pixels(torch.from_numpy(images))
    # Preprocessing leaves MNIST's own images unchanged.
    assert predictions[0].label == predictor(DIGITS[0]).label
    assert predictions[0].input is None
    assert predictor.predict_pixels(images[:0]) == []


def test_the_callers_pixels_are_not_modified(predictor: Predictor) -> None:
    images = torch.from_numpy(DIGITS.copy())
    predictor.predict_pixels(images)
    predictor(list(images))
    np.testing.assert_array_equal(images.numpy(), DIGITS)


@pytest.mark.parametrize("image", [None, 3, b"digit.png"])
def test_the_error_names_a_type_that_is_not_an_image(predictor: Predictor, image: Any) -> None:
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        predictor(image)


def test_a_prediction_below_the_threshold_is_unsure(trained_run: TrainedRun, predictor: Predictor) -> None:
    probability = predictor(PAGES[0]).probability
    for threshold, unsure in {0.0: False, probability: False, min(1.0, probability + 1e-6): True}.items():
        assert Predictor(predictor.trained, threshold)(PAGES[0]).unsure == unsure
    assert predictor.unsure_below == CALIBRATION.unsure_below
    with pytest.raises(ValueError, match=r"unsure_below must be in \[0, 1\], got 1.5"):
        Predictor.from_run("best", trained_run.root, unsure_below=1.5)


def test_ink_can_be_passed(predictor: Predictor) -> None:
    inverted = 255 - PAGES[0]
    seen = predictor(inverted).input
    assert seen is not None
    assert seen.ink == "light"
    assert predictor(inverted, ink="light") == predictor(PAGES[0], ink="dark")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((28, 28)), "must be uint8"),
        (np.zeros((5, 28, 28), np.uint8), "must be uint8"),
        (torch.zeros(28), r"must be \(H, W\)"),
        (torch.zeros(4, 1, 28, 28), r"list\(batch\) splits a batch"),
        (torch.zeros(28, 28, dtype=torch.int64), "must be uint8 or float"),
        (torch.full((28, 28), 2.0), r"must be in \[0, 1\], got 2 to 2"),
        (torch.full((28, 28), torch.nan), r"must be in \[0, 1\]"),
        (np.zeros((0, 28), np.uint8), "not empty"),
        (torch.zeros(0, 28), "not empty"),
    ],
)
def test_values_that_are_not_images_are_refused(predictor: Predictor, image: ImageLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(image)


@pytest.mark.parametrize("images", [np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28)), torch.zeros(1, 1, 28, 28)])
def test_pixels_of_another_dtype_or_shape_are_refused(predictor: Predictor, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 28, 28\), got"):
        predictor.predict_pixels(images)


def test_a_page_without_a_digit_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("L", (200, 200), 255).save(tmp_path / "blank.png")
    with pytest.raises(ImageError, match=r"blank\.png: no digit found"):
        predictor([tmp_path / "blank.png"])


def test_from_run_without_a_run_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        Predictor.from_run(root=tmp_path)
