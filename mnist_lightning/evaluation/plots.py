"""Figures of a result: confusion matrix, reliability diagram, learning curves, sheets of images.

matplotlib is imported when a figure is drawn, because a training that draws nothing should start without it. Figures
are built with its object-oriented API, since pyplot would keep each one in global state. Blue and vermilion come from
the colour-blind safe palette of Okabe and Ito.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnist_lightning.evaluation.analysis import WorstSample
from mnist_lightning.evaluation.calibration import BINS, Bin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]  # (epoch, value)

DPI = 100
BLUE, VERMILION = "#0072B2", "#D55E00"
GREY, LIGHT_GREY = "#777777", "#eeeeee"
CURVES = {"Loss": ("Loss/train", "Loss/val"), "Accuracy": ("Accuracy/train", "Accuracy/val")}  # TensorBoard's tags
MAX_MATRIX_CLASSES = 100  # of a whole confusion matrix; of more classes, those with the most errors are drawn
MAX_COUNT_CLASSES = 26  # of a confusion matrix with the counts in its cells
MAX_NAME = 24  # characters of a class name
GAP = 6  # pixels between the images of a sheet
CAPTION_HEIGHT = 34  # pixels, two lines


def confusion_matrix(confusion: Tensor, class_names: Sequence[str]) -> "Figure":
    """Draw the number of samples by label and predicted class, correct ones in blue and errors in vermilion.

    Blue is darker for a higher recall, vermilion for more errors. Of more than `MAX_MATRIX_CLASSES` classes, the
    `MAX_COUNT_CLASSES` with the most errors are drawn.
    """
    from matplotlib.colors import to_rgb

    names, title = _labels(class_names), "Confusion matrix"
    totals = confusion.sum(dim=1)
    if len(names) > MAX_MATRIX_CLASSES:
        errors = confusion.sum(dim=0) + totals - 2 * confusion.diag()
        chosen = errors.sort(descending=True, stable=True).indices[:MAX_COUNT_CLASSES].sort().values
        title = f"Confusion matrix of the {len(chosen)} classes with the most errors, of {len(names)}"
        confusion, totals = confusion[chosen][:, chosen], totals[chosen]
        names = [names[place] for place in chosen.tolist()]
    count, counts = len(names), confusion.numpy()
    is_correct = np.eye(count, dtype=bool)
    fraction = np.where(
        is_correct, counts / totals.clamp(min=1).numpy()[:, None], counts / max(1, counts[~is_correct].max(initial=0))
    )
    colours = np.where(is_correct[..., None], _shades(BLUE, fraction), _shades(VERMILION, fraction))
    colours[counts == 0] = to_rgb(LIGHT_GREY)
    cell = 0.42 if count <= 12 else 0.34 if count <= MAX_COUNT_CLASSES else 0.14  # inches
    small = 10 if count <= 12 else 7.5
    is_long = max(map(len, names)) > (2 if count > MAX_COUNT_CLASSES else 3)
    side, margin = max(4.0, count * cell), 0.5 + 0.008 * small * max(map(len, names))  # inches
    width, height = side + margin + 0.2, side + 0.4 + (margin if is_long else 0.6)
    figure = _figure(width, height, layout=None)  # a layout engine takes longer than drawing does
    axes = figure.add_axes((margin / width, 1 - (side + 0.4) / height, side / width, side / height))
    axes.imshow(colours)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("label")
    axes.set_xticks(range(count), names, fontsize=small, rotation=90 if is_long else 0)
    axes.set_yticks(range(count), names, fontsize=small)
    edges = np.arange(count + 1) - 0.5
    axes.hlines(edges, -0.5, count - 0.5, color="white", linewidth=cell * 4)
    axes.vlines(edges, -0.5, count - 0.5, color="white", linewidth=cell * 4)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for row, column in np.argwhere(counts) if count <= MAX_COUNT_CLASSES else ():
        colour = "white" if fraction[row, column] > 0.6 else "black"
        size = small if counts[row, column] < 1000 else small - 2
        axes.text(column, row, str(counts[row, column]), color=colour, fontsize=size, ha="center", va="center")
    return figure


def reliability_diagram(panels: Mapping[str, Sequence[Bin]], noun: str = "images") -> "Figure":
    """Draw, in a panel for each title, accuracy and mean confidence of each bin, and below them the bin's count."""
    figure = _figure(4.6 * len(panels), 5.2)
    rows: Any = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=[4, 1])
    centres = (np.arange(BINS) + 0.5) / BINS
    for (title, bins), axes, histogram in zip(panels.items(), *rows, strict=True):
        counts, confidence, accuracy = np.array([astuple(each) for each in bins]).T
        filled = counts > 0
        axes.bar(centres, accuracy, 0.9 / BINS, color=BLUE, label="accuracy")
        ends = ((centres + offset / BINS)[filled] for offset in (-0.5, 0.5))
        axes.hlines(confidence[filled], *ends, color=VERMILION, linewidth=3, label="mean confidence")
        axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect calibration")
        axes.set_title(title, fontsize=11)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("accuracy")
        axes.legend(fontsize=8, frameon=False, loc="upper left")
        histogram.bar(centres, counts, 0.9 / BINS, color=GREY)
        histogram.set_yscale("symlog")
        histogram.set_ylim(bottom=0)
        histogram.set_xlim(0, 1)
        histogram.set_xlabel("confidence (probability of the prediction)")
        histogram.set_ylabel(noun)
        _tidy(axes)
        _tidy(histogram)
    return figure


def learning_curves(curves: Mapping[str, Curve]) -> "Figure | None":
    """Draw loss and accuracy over the epochs, by TensorBoard's tag; None if there is no point."""
    from matplotlib.ticker import MaxNLocator

    charts = {name: [tag for tag in tags if curves.get(tag)] for name, tags in CURVES.items()}
    charts = {name: tags for name, tags in charts.items() if tags}
    if not charts:
        return None
    figure = _figure(4.6 * len(charts), 3.4)
    all_axes: Any = figure.subplots(1, len(charts), squeeze=False)[0]
    styles = {"train": (BLUE, "-o"), "val": (VERMILION, "--s")}
    for axes, (name, tags) in zip(all_axes, charts.items(), strict=True):
        for tag in tags:
            colour, style = styles[tag.split("/")[1]]
            axes.plot(*zip(*curves[tag], strict=True), style, color=colour, markersize=4, label=tag.split("/")[1])
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=9, frameon=False)
        _tidy(axes)
    return figure


def worst_images(images: NDArray[np.uint8], worst: Sequence[WorstSample]) -> "Figure":
    """Draw the images with the highest loss, uint8 (N, H, W) or (N, H, W, 3), with label, prediction and index."""
    from matplotlib.transforms import Bbox

    both = _labels([each.label for each in worst]), _labels([each.prediction for each in worst])
    names = [f"{label}, predicted {prediction}" for label, prediction in zip(*both, strict=True)]
    width = 112 if max(map(len, names), default=0) <= 18 else 224  # pixels of an image; long names need the room
    zoom, columns = max(1, width // images.shape[2]), 896 // width
    sheet = image_sheet(images, columns=columns, zoom=zoom, caption_height=CAPTION_HEIGHT)
    height, total_width = sheet.shape[:2]
    figure = _figure((total_width + 0.5) / DPI, (height + 0.5) / DPI, layout=None)
    figure.figimage(sheet, origin="upper")
    step_x, step_y = zoom * images.shape[2] + GAP, zoom * images.shape[1] + GAP + CAPTION_HEIGHT
    for place, (name, each) in enumerate(zip(names, worst, strict=True)):
        x, y = GAP + place % columns * step_x, height - (place // columns + 1) * step_y
        caption = f"{name}\n{100 * each.probability:.1f} %, index {each.index}"
        text = figure.text(x / total_width, (y + CAPTION_HEIGHT - 3) / height, caption, fontsize=8, va="top")
        text.set_clip_box(Bbox.from_extents(x, y, x + step_x - GAP, y + step_y))
    return figure


def image_sheet(images: NDArray[np.uint8], *, columns: int, zoom: int, caption_height: int = 0) -> NDArray[np.uint8]:
    """Return images, uint8 (N, H, W) or (N, H, W, 3), enlarged and in rows on a white sheet, as uint8 (H', W', 3)."""
    enlarged = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    enlarged = enlarged if enlarged.ndim == 4 else enlarged[..., None]
    count, height, width, _ = enlarged.shape
    rows, columns = -(-count // columns), min(columns, count)
    tiles = np.full((rows * columns, height + GAP + caption_height, width + GAP, 3), 255, np.uint8)
    tiles[:count, GAP : GAP + height, GAP:] = enlarged
    grid = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    sheet = grid.reshape(rows * tiles.shape[1], columns * tiles.shape[2], 3)
    return np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def as_png(figure: "Figure | NDArray[np.uint8]") -> bytes:
    """Return a figure, or pixels uint8 (H, W, 3), as a PNG file, compressed lightly to save time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if not isinstance(figure, np.ndarray):
        canvas: Any = FigureCanvasAgg(figure)  # it has no types
        canvas.draw()
        figure = np.asarray(canvas.buffer_rgba())[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(figure).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Return an empty figure of a size in inches."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would report where it caches its list of fonts
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LIGHT_GREY)
    axes.set_axisbelow(True)


def _labels(names: Sequence[str]) -> list[str]:
    """Return class names as matplotlib can draw them: cut, and replaced by #N if its font lacks a character."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    short = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]
    return [
        name.replace("$", r"\$") if all(ord(letter) in known for letter in name) else f"#{place}"
        for place, name in enumerate(short)
    ]


def _shades(colour: str, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RGB (..., 3) between a pale shade of a colour (0) and the colour itself (1)."""
    from matplotlib.colors import to_rgb

    full: NDArray[np.float64] = np.array(to_rgb(colour))
    return 1 - (0.2 + 0.8 * fraction[..., None]) * (1 - full)
