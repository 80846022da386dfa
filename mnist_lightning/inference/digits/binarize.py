"""Separate foreground from background in a grey image: contrast, ruled lines, stroke width.

Foreground is what is drawn (the ink), background is what it is drawn on (the paper).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Ink = Literal["dark", "light"]  # relative to the background
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# As a fraction of the image's longer side. Wider regions are background, lit or in shadow; narrower ones may be ink.
MAX_STROKE_WIDTH = 1 / 3
DARKEST_BACKGROUND = 64.0  # grey level; below it, contrast is not scaled up any further, which would amplify noise

# Ruled lines: minimum contrast, minimum fraction of the image's width that they cover, maximum thickness (as a fraction
# of the longer side), maximum slope.
LINE_CONTRAST = 0.15
LINE_COVERAGE = 0.6
LINE_THICKNESS = 0.06
LINE_SLOPE = 0.08
STROKE_CONTRAST = 0.75  # of full ink: the middle of a pen stroke is darker than this, a ruled line is fainter
LINE_SEGMENTS = 16  # a line is followed in this many segments of the width


def contrast(grey: Floats, ink: Ink) -> Floats:
    """Return how much each pixel of a grey image (H, W) in [0, 255] stands out from the background: at most 1.

    The background is the grey-level closing of the image (Serra, Image Analysis and Mathematical Morphology, 1982):
    dark regions narrower than a square of `MAX_STROKE_WIDTH` vanish in it, while wider ones remain, such as a shadow or
    the table under the paper. Contrast with dark ink is relative to the background, so a shadow does not change it.
    """
    from scipy import ndimage

    values = grey if ink == "dark" else 255 - grey
    smooth = Image.fromarray(np.rint(values).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))
    radius = max(2, round(MAX_STROKE_WIDTH * max(grey.shape) / 2))
    # Extended beyond its edges, so that the square fits between an edge and a digit near it.
    extended = np.pad(np.asarray(smooth), radius, mode="edge")
    background = ndimage.grey_closing(extended, size=2 * radius + 1, mode="nearest")[radius:-radius, radius:-radius]
    full_ink = np.maximum(background, DARKEST_BACKGROUND) if ink == "dark" else 255.0
    foreground: Floats = (background - values) / full_ink
    # Where there is noise, the closing is brighter than the average background; the median of all pixels that are
    # certainly background corrects this.
    foreground -= np.median(foreground[foreground <= foreground.max() / 2])
    return foreground


def without_lines(foreground: Floats) -> Floats:
    """Return the foreground (H, W) without ruled lines: horizontal or vertical to within a few degrees.

    A single line counts as a stroke, such as a 1, if there is nothing else, or if it is as dark as strokes are and ends
    within the image.
    """
    return _without_horizontal_lines(_without_horizontal_lines(foreground).T).T


def stroke_width(strokes: Floats) -> float:
    """Return the mean width in pixels of strokes (H, W) in [0, 1]: twice their area over the length of their outline.

    The outline is measured along pixel edges, which overestimates it by a factor of 4/pi, averaged over all directions.

    >>> bar = np.zeros((60, 60), np.float32)
    >>> bar[10:50, 20:26] = 1
    >>> round(stroke_width(bar) * np.pi / 4, 1)  # 2 * 240 / 92: the ends count too
    5.2
    """
    padded = np.pad(strokes, 1)
    outline = sum(float(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1)) * np.pi / 4
    return 2 * float(strokes.sum()) / outline


def dilate(strokes: Floats, radius: float) -> Floats:
    """Return strokes (H, W) in [0, 1], thicker by a radius in pixels on each side; a negative radius thins them."""
    from scipy import ndimage

    if radius < 0:
        return 1 - dilate(1 - strokes, -radius)
    rows, columns = np.ogrid[-int(radius) : int(radius) + 1, -int(radius) : int(radius) + 1]
    thick: Floats = ndimage.grey_dilation(strokes, footprint=rows**2 + columns**2 <= radius**2, mode="constant")
    return thick


def _without_horizontal_lines(foreground: Floats) -> Floats:
    height, width = foreground.shape
    if width < 2 * LINE_SEGMENTS:
        return foreground
    mask = foreground >= LINE_CONTRAST
    rise, coverage = _dominant_slope(mask)
    lines = np.flatnonzero(coverage >= LINE_COVERAGE)
    if not len(lines):
        return foreground
    slant = np.rint(rise * (np.arange(width) / width - 0.5)).astype(np.int64)
    groups = np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1)
    thin = [line for line in groups if len(line) <= max(2, LINE_THICKNESS * max(height, width))]
    cleaned = foreground.copy()
    for line in thin:
        for row in range(line[0] - 1, line[-1] + 2):
            _erase_short_runs(cleaned, mask, row + slant, len(line) + 3)
    only_line = len(thin) == 1
    if only_line and (_is_stroke(foreground, thin[0][:, None] + slant) or not (cleaned >= LINE_CONTRAST).any()):
        return foreground
    return cleaned


def _is_stroke(foreground: Floats, rows: NDArray[np.int64]) -> bool:
    """Return whether a line, given by its rows (n, W) in each column, is dark and ends within the image."""
    height, width = foreground.shape
    along = foreground[rows.clip(0, height - 1), np.arange(width)].max(axis=0)
    inked = along >= LINE_CONTRAST
    segment = width // LINE_SEGMENTS
    reaches_both_edges = min(inked[:segment].mean(), inked[-segment:].mean()) >= LINE_COVERAGE
    return bool(not reaches_both_edges and np.median(along[inked]) >= STROKE_CONTRAST)


def _dominant_slope(mask: Mask) -> tuple[int, Floats]:
    """Return how many rows the lines of a mask rise over its width, and which fraction of each such line is set."""
    height, width = mask.shape
    bounds = np.linspace(0, width, LINE_SEGMENTS + 1).astype(np.int64)
    segments = np.add.reduceat(mask, bounds[:-1], axis=1, dtype=np.float32) / np.diff(bounds)  # (H, LINE_SEGMENTS)
    middles = (bounds[1:] + bounds[:-1]) / 2 / width - 0.5
    max_rise = round(width * LINE_SLOPE)
    padded = np.pad(segments, ((max_rise, max_rise), (0, 0)))
    rises = np.arange(-max_rise, max_rise + 1)
    offsets = np.rint(np.outer(rises, middles)).astype(np.int64)[:, None, :]  # (R, 1, LINE_SEGMENTS)
    rows = max_rise + np.arange(height)[:, None] + offsets  # (R, H, LINE_SEGMENTS)
    coverage = padded[rows, np.arange(LINE_SEGMENTS)].mean(axis=2)  # (R, H)
    # The fourth power gives one complete line more weight than many halves.
    best = int(np.argmax((coverage**4).sum(axis=1)))
    return int(rises[best]), coverage[best]


def _erase_short_runs(foreground: Floats, mask: Mask, rows: NDArray[np.int64], longest: int) -> None:
    """Erase in each column the vertical run through a given row, unless it is longer: a stroke that crosses."""
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
    foreground[places[run], columns[run]] = 0
