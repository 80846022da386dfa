import io

import numpy as np
import pytest
from PIL import Image

from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import ClassScore, WorstImage
from mnist_lightning.evaluation.calibration import BINS, Bin
from mnist_lightning.evaluation.plots import BLUE, PALE, PAPER, VERMILION

SIDE = 40  # of a cell of the confusion matrix


def cells(image: Image.Image, classes: int) -> list[list[tuple[int, ...]]]:
    """Return the colour of each cell of a confusion matrix, from its lower right corner."""
    pixels = np.asarray(image)
    height, width = image.height - plots.MARGIN - 4, image.width - plots.MARGIN - 4
    return [
        [tuple(pixels[height - SIDE * (classes - 1 - row), width - SIDE * (classes - 1 - column)].tolist())
         for column in range(classes)]
        for row in range(classes)
    ]  # fmt: skip


def test_a_confusion_matrix_has_labels_in_rows_and_colours_by_count() -> None:
    drawn = cells(plots.confusion_matrix([[10, 6, 0], [0, 5, 0], [3, 0, 0]], ["a", "b", "c"]), 3)
    assert drawn[1][1] == BLUE, "all of b is right"
    assert drawn[0][1] == VERMILION, "the most frequent mistake"
    assert drawn[1][0] == drawn[0][2] == drawn[2][2] == PALE
    assert BLUE[0] < drawn[0][0][0] < 255, "most of a is right"
    assert VERMILION[1] < drawn[2][0][1] < 255, "a lesser mistake"


@pytest.mark.parametrize("names", [list("abc"), ["Ankle boot", "T-shirt/top", "Bag"], ["あ", "い", "う"]])
def test_names_of_any_length_and_script_leave_the_cells_alone(names: list[str]) -> None:
    confusion = [[9, 1, 0], [0, 8, 2], [0, 0, 7]]
    assert cells(plots.confusion_matrix(confusion, names), 3) == cells(
        plots.confusion_matrix(confusion, list("xyz")), 3
    )


def test_a_matrix_of_many_classes_is_drawn_without_numbers() -> None:
    image = plots.confusion_matrix(np.eye(62, dtype=int).tolist(), [str(place) for place in range(62)])
    assert image.width < 1000


def test_a_sheet_shows_every_pixel_of_every_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    sheet = np.asarray(plots.image_sheet(images, columns=3, zoom=2))
    for place, image in enumerate(images):
        top, left = 12 + place // 3 * 62, 12 + place % 3 * 62
        assert np.array_equal(sheet[top : top + 56, left : left + 56], np.kron(image, np.ones((2, 2), np.uint8)))


def test_captions_stay_below_their_images() -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    for name, zoom in (("T-shirt/top", 8), ("a name that is much too long for an image", 8), ("4", 4)):
        side = zoom * 28
        plain = np.asarray(plots.image_sheet(images, columns=1, zoom=zoom))
        sheet = np.asarray(plots.worst_images(images, [WorstImage(7, name, "9", 0.5)]))
        assert np.array_equal(sheet[: 12 + side, : 18 + side], plain[: 12 + side, : 18 + side])
        assert sheet[12 + side :].min() < 100
        assert sheet[:, 12 + side + 6 :].min() == 255, "cut at the image's right edge"


def test_bars_of_the_reliability_diagram_are_as_high_as_the_accuracy() -> None:
    bins = [Bin(0, 0.0, 0.0)] * BINS
    bins[9], bins[14] = Bin(5, 0.62, 0.4), Bin(100, 0.99, 1.0)
    image = np.asarray(plots.reliability_diagram([("a", bins)]))
    blue, vermilion = ((image == colour).all(axis=2) for colour in (BLUE, VERMILION))
    step = 27
    left, top, side = 48, plots.TITLE_HEIGHT, BINS * step
    for place, part in enumerate(bins):
        column = left + place * step + 5  # left of the middle
        height = blue[top : top + side, column].sum() + vermilion[top : top + side, column].sum() * (
            part.accuracy > 0.6
        )
        assert height == pytest.approx(side * part.accuracy, abs=4), "a tick's half, and the diagonal that crosses"
    ticks = np.flatnonzero(vermilion[: top + side, left + 9 * step + 5])
    assert ticks.tolist() == [top + side - round(0.62 * side) + offset for offset in (-1, 0, 1)]


def test_bars_of_the_class_errors_are_as_long_as_the_errors() -> None:
    classes = [ClassScore("a", 50, precision=0.96, recall=0.98), ClassScore("b", 50, precision=None, recall=1.0)]
    image = np.asarray(plots.class_errors(classes))
    rows = slice(plots.TITLE_HEIGHT, plots.TITLE_HEIGHT + 80)
    blue, vermilion = ((image[rows] == colour).all(axis=2).sum(axis=1) for colour in (BLUE, VERMILION))
    assert vermilion.max() == 361, "the largest error takes the whole length"
    assert blue[:15].tolist() == [181] * 15, "half as large"
    assert vermilion[40:].max() == 0, "b is never answered"
    assert blue[40:].max() == 1, "no image of b was missed"


def test_figures_are_png_files_on_white_paper() -> None:
    figure = plots.class_errors([ClassScore("a", 1, precision=1.0, recall=1.0)])
    with Image.open(io.BytesIO(plots.as_png(figure))) as image:
        assert image.format == "PNG"
        assert image.getpixel((0, 0)) == PAPER
        assert np.array_equal(np.asarray(image), np.asarray(figure))
