"""What in a grey picture is ink and what is paper: contrast, printed lines, strokes. NumPy on arrays in memory."""

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Ink = Literal["dark", "light"]  # than the paper
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Array = TypeVar("Array", NDArray[np.uint8], Floats)

# Of the picture's longer side. What is wider than this is paper, in light or in shadow; what is narrower may be ink.
WIDEST_STROKE = 1 / 3
DARKEST_PAPER = 64.0  # grey level; below it the contrast is no longer taken in proportion, for noise would be amplified

# Printed lines: how faint, how much of the picture's width they cover, how thick (of the longer side), how steep.
LINE_CONTRAST = 0.15
LINE_COVER = 0.6
LINE_THICKNESS = 0.06
LINE_SLOPE = 0.08
STROKE_CONTRAST = 0.75  # of full ink: a pen's stroke is darker in its middle, a printed line fainter
LINE_PARTS = 16  # a line's course is looked at in so many parts of the width


def contrast(grey: Floats, ink: Ink) -> Floats:
    """Return how much each pixel stands out from the paper around it, as ink of this kind: 0 paper, at most 1.

    The paper is the grey-level closing of the picture (Serra, Image Analysis and Mathematical Morphology, 1982): dark
    things that are narrower than a square of `WIDEST_STROKE` vanish in it, and whatever is wider stays, such as a
    shadow or the table under the paper. Contrast with dark ink is relative to the paper, so a shadow does not alter it.

    Args:
        grey: float32 (H, W) in [0, 255].
        ink: Whether to look for ink that is darker or lighter than the paper.
    """
    values = grey if ink == "dark" else 255 - grey
    calm = Image.fromarray(np.rint(values).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
    radius = max(2, round(WIDEST_STROKE * max(grey.shape) / 2))
    # The picture goes on beyond its edge, or the square would not fit between the edge and a digit near it.
    paper = np.pad(np.asarray(calm), radius, mode="edge")
    paper = ~_running_max(~_running_max(paper, radius), radius)[radius:-radius, radius:-radius]
    full = np.maximum(paper, DARKEST_PAPER) if ink == "dark" else 255.0
    found: Floats = (paper - values) / full
    # In noise the closing is brighter than the paper on the average; what is surely no ink tells by how much.
    found -= np.median(found[found <= found.max() / 2])
    return found


def without_lines(ink: Floats) -> Floats:
    """Return a picture's ink (H, W) without the lines that run across it, level or upright to within a few degrees.

    A single line is a stroke, such as a 1, where nothing else is there, or where it is as dark as strokes are and ends
    within the picture.
    """
    return _without_level_lines(_without_level_lines(ink).T).T


def stroke_width(strokes: Floats) -> float:
    """Return the mean width of strokes (H, W) in [0, 1], in pixels: twice their area over the length of their outline.

    The outline is counted along pixel edges, which overstates it by 4/pi on the average over all directions.

    >>> bar = np.zeros((60, 60), np.float32)
    >>> bar[10:50, 20:26] = 1
    >>> round(stroke_width(bar) * np.pi / 4, 1)  # 2 * 240 / 92: the ends count too
    5.2
    """
    padded = np.pad(strokes, 1)
    outline = sum(float(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1)) * np.pi / 4
    return 2 * float(strokes.sum()) / outline


def thickened(strokes: Floats, radius: float) -> Floats:
    """Return strokes (H, W) in [0, 1] made thicker by a radius in pixels on each side; a negative one thins them."""
    if radius < 0:
        return 1 - thickened(1 - strokes, -radius)
    reach = int(radius)
    padded = np.pad(strokes, reach)
    height, width = strokes.shape
    thick = strokes
    for dy in range(-reach, reach + 1):
        half = int(np.sqrt(radius**2 - dy**2))  # of the disc, in this row
        rows = padded[reach + dy : reach + dy + height, reach - half : reach + half + width]
        thick = np.maximum(thick, _sliding_max(rows, 2 * half + 1, axis=1))
    return thick


def _running_max(values: Array, radius: int) -> Array:
    """Return the maximum in a square of 2 * radius + 1 pixels around each; beyond the edge there is nothing."""
    for axis in (0, 1):
        margins = [(radius, radius) if axis == a else (0, 0) for a in (0, 1)]
        values = _sliding_max(np.pad(values, margins, mode="edge"), 2 * radius + 1, axis)
    return values


def _sliding_max(values: Array, size: int, axis: int) -> Array:
    """Return the maximum of each `size` neighbours along an axis, which gets shorter by size - 1."""
    values = values.swapaxes(0, axis)
    span = 1
    while span < size:
        step = min(span, size - span)
        values = np.maximum(values[:-step], values[step:])
        span += step
    return values.swapaxes(0, axis)


def _without_level_lines(ink: Floats) -> Floats:
    height, width = ink.shape
    if width < 2 * LINE_PARTS:
        return ink
    mask = ink >= LINE_CONTRAST
    rise, cover = _best_slope(mask)
    lines = np.flatnonzero(cover >= LINE_COVER)
    if not len(lines):
        return ink
    slant = np.rint(rise * (np.arange(width) / width - 0.5)).astype(np.int64)
    groups = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    thin = [line for line in groups if len(line) <= max(2, LINE_THICKNESS * max(height, width))]
    out = ink.copy()
    for line in thin:
        for row in range(line[0] - 1, line[-1] + 2):
            _erase_short_runs(out, mask, row + slant, len(line) + 3)
    if len(thin) == 1 and (_is_stroke(ink, thin[0][:, None] + slant) or not (out >= LINE_CONTRAST).any()):
        return ink
    return out


def _is_stroke(ink: Floats, rows: NDArray[np.int64]) -> bool:
    """Tell whether a line, whose rows (n, W) are given for each column, is dark and ends within the picture."""
    height, width = ink.shape
    course = ink[rows.clip(0, height - 1), np.arange(width)].max(axis=0)
    inked = course >= LINE_CONTRAST
    part = width // LINE_PARTS
    reaches_both_edges = min(inked[:part].mean(), inked[-part:].mean()) >= LINE_COVER
    return bool(not reaches_both_edges and np.median(course[inked]) >= STROKE_CONTRAST)


def _best_slope(mask: Mask) -> tuple[int, Floats]:
    """Return by how many rows the lines of a mask rise over its width, and what share of each such line is ink."""
    height, width = mask.shape
    bounds = np.linspace(0, width, LINE_PARTS + 1).astype(np.int64)
    parts = np.add.reduceat(mask, bounds[:-1], axis=1, dtype=np.float32) / np.diff(bounds)  # (H, LINE_PARTS)
    middles = (bounds[1:] + bounds[:-1]) / 2 / width - 0.5
    steepest = round(width * LINE_SLOPE)
    padded = np.pad(parts, ((steepest, steepest), (0, 0)))
    rises = np.arange(-steepest, steepest + 1)
    offsets = np.rint(np.outer(rises, middles)).astype(np.int64)[:, None, :]  # (R, 1, LINE_PARTS)
    rows = steepest + np.arange(height)[:, None] + offsets  # (R, H, LINE_PARTS)
    covers = padded[rows, np.arange(LINE_PARTS)].mean(axis=2)  # (R, H)
    # The fourth power: one whole line counts for more than many halves.
    best = int(np.argmax((covers**4).sum(axis=1)))
    return int(rises[best]), covers[best]


def _erase_short_runs(ink: Floats, mask: Mask, rows: NDArray[np.int64], longest: int) -> None:
    """Erase in each column the upright run of ink through a given row, unless it is longer: then a stroke crosses."""
    height, width = mask.shape
    reach = longest + 1
    places = rows + np.arange(-reach, reach + 1)[:, None]  # (2 * reach + 1, W)
    columns = np.broadcast_to(np.arange(width), places.shape)
    inked = (places >= 0) & (places < height)
    inked &= mask[places.clip(0, height - 1), columns]
    above = np.logical_and.accumulate(inked[reach::-1])[:0:-1]
    below = np.logical_and.accumulate(inked[reach:])
    run = np.concatenate([above, below])
    run &= run.sum(axis=0) <= longest
    ink[places[run], columns[run]] = 0
