import io

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import WorstSample, analyse
from mnist_lightning.evaluation.calibration import BINS, Bin
from mnist_lightning.evaluation.plots import BLUE, LIGHT_GREY, VERMILION
from mnist_lightning.evaluation.predictions import Predictions


def pixels_of(figure: Figure) -> np.ndarray:
    with Image.open(io.BytesIO(plots.as_png(figure))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def names_on(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_a_confusion_matrix_has_labels_in_rows_and_colours_by_count() -> None:
    figure = plots.confusion_matrix(torch.tensor([[10, 6, 0], [0, 5, 0], [3, 0, 0]]), ["a", "b", "c"])
    colours = np.asarray(figure.axes[0].images[0].get_array())
    assert names_on(figure) == ["a", "b", "c"]
    assert np.allclose(colours[1, 1], to_rgb(BLUE)), "every b is correct"
    assert np.allclose(colours[0, 1], to_rgb(VERMILION)), "the most frequent error"
    assert np.allclose(colours[[1, 0, 2], [0, 2, 2]], to_rgb(LIGHT_GREY)), "no sample"
    assert to_rgb(BLUE)[0] < colours[0, 0, 0] < 1, "most of a is correct"
    assert to_rgb(VERMILION)[1] < colours[2, 0, 1] < 1, "a less frequent error"
    written = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert written == {(0, 0): "10", (1, 0): "6", (1, 1): "5", (0, 2): "3"}


def test_class_names_of_any_script_are_drawn_or_replaced_by_their_position() -> None:
    names = ["Ankle boot", "Кошка", "い", "$x$ and $y$", "a name that is much too long to be drawn beside a matrix"]
    figure = plots.confusion_matrix(torch.eye(5, dtype=torch.int64), names)
    shown = names_on(figure)
    assert shown[:3] == ["Ankle boot", "Кошка", "#2"]
    assert shown[3] == r"\$x\$ and \$y\$", "dollars are escaped: between them matplotlib would read mathematics"
    assert len(shown[4]) == plots.MAX_NAME
    pixels_of(figure)  # warnings, such as the one for a missing glyph, are errors


def test_a_matrix_of_many_classes_is_drawn_without_counts() -> None:
    figure = plots.confusion_matrix(torch.eye(62, dtype=torch.int64), [str(place) for place in range(62)])
    assert not figure.axes[0].texts
    assert pixels_of(figure).shape[1] < 1200


def test_a_test_of_300_classes_has_small_and_readable_figures() -> None:
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 300, 2_000))
    logits = torch.from_numpy(random.normal(size=(2_000, 300))).float()
    logits[torch.arange(2_000), labels] += 4
    names = tuple(f"class {place}" for place in range(300))
    analysis = analyse(Predictions(logits, labels, torch.arange(2_000)), names, None)
    figure = plots.confusion_matrix(analysis.confusion, names)
    assert len(plots.as_png(figure)) < 300_000
    assert len(names_on(figure)) <= 30
    assert max(pixels_of(figure).shape) < 1500
    errors = analysis.confusion.clone().fill_diagonal_(0)
    totals = (errors.sum(dim=0) + errors.sum(dim=1)).tolist()
    shown = [names.index(name) for name in names_on(figure)]
    assert shown == sorted(shown)
    assert sorted((totals[place] for place in shown), reverse=True) == sorted(totals, reverse=True)[: len(shown)]


def test_a_sheet_shows_every_pixel_of_every_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    sheet = plots.image_sheet(images, columns=3, zoom=2)
    for place, image in enumerate(images):
        top, left = 6 + place // 3 * 62, 6 + place % 3 * 62
        expected = np.kron(image, np.ones((2, 2), np.uint8))
        assert (sheet[top : top + 56, left : left + 56] == expected[..., None]).all()


def test_a_sheet_of_colour_images_keeps_their_colours() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    sheet = plots.image_sheet(images, columns=2, zoom=1)
    assert np.array_equal(sheet[6:14, 6:14], images[0])
    assert np.array_equal(sheet[6:14, 20:28], images[1])


@pytest.mark.parametrize(("name", "zoom"), [("T-shirt/top", 8), ("a name that is too long for the image", 8), ("4", 4)])
def test_captions_stay_below_their_images(name: str, zoom: int) -> None:
    images, side = np.zeros((1, 28, 28), np.uint8), zoom * 28
    sheet = pixels_of(plots.worst_images(images, [WorstSample(7, name, "9", 0.5)]))
    assert (sheet[6 : 6 + side, 6 : 6 + side] == 0).all(), "the image is there, pixel by pixel"
    assert sheet[:, 6 + side :].min() == 255, "the caption is cut at the image's right edge"
    assert sheet[:6].min() == 255
    assert sheet[6 + side :].min() < 100


def test_bars_of_the_reliability_diagram_are_as_high_as_the_accuracy() -> None:
    bins = [Bin(0, 0.0, 0.0)] * BINS
    bins[9], bins[14] = Bin(5, 0.62, 0.4), Bin(100, 0.99, 1.0)
    figure = plots.reliability_diagram({"a": bins})
    accuracy, counts = figure.axes
    assert [bar.get_height() for bar in bars(accuracy)] == [each.accuracy for each in bins]
    assert [bar.get_height() for bar in bars(counts)] == [each.count for each in bins]
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars(accuracy)]
    assert centres == pytest.approx((np.arange(BINS) + 0.5) / BINS)
    (means,) = accuracy.collections
    assert [segment[0][1] for segment in means.get_segments()] == [0.62, 0.99]  # type: ignore[attr-defined]
    pixels_of(figure)


def test_learning_curves_have_a_line_for_each_split() -> None:
    train, val = [(0, 0.5), (1, 0.25), (2, 0.125)], [(0, 0.4), (1, 0.3), (2, 0.35)]
    figure = plots.learning_curves({"Loss/train": train, "Loss/val": val, "Accuracy/train": [(7, 0.9)], "Other": train})
    assert figure
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    assert [line.get_xydata().tolist() for line in loss.lines] == [[list(p) for p in train], [list(p) for p in val]]  # type: ignore[union-attr]
    assert len({line.get_linestyle() for line in loss.lines}) == 2, "they differ in more than colour"
    assert [line.get_label() for line in accuracy.lines] == ["train"]
    pixels_of(figure)
    assert plots.learning_curves({"Other": train}) is None
