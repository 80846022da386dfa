"""Find the digit in a grey picture, whatever else is there: shadow, table, ruled lines, dust. NumPy and Pillow.

It looks twice, each time at a copy of at most `WORKING_SIZE` pixels a side: at the whole picture, to see where the
digit is and whether its ink is dark or light, and then at the digit and its surroundings, to see it well.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning.inference.digits.binarize import (
    DARKEST_PAPER,
    Floats,
    Ink,
    Mask,
    contrast,
    stroke_width,
    thickened,
    without_lines,
)
from mnist_lightning.inference.digits.components import Components, connected_components

WORKING_SIZE = 256  # pixels; a digit that fills a tenth of the picture still has 25
SURROUNDINGS = 0.5  # of the digit's longer side, on each side of it

FAINTEST_INK = 0.07  # contrast of the darkest ink with the paper; a pencil has about 0.2
NOISE_MARGIN = 6.0  # standard deviations of the noise that the darkest ink stands out by
DARKEST_SHARE = 0.001  # of the pixels: as many give the contrast of full ink
EDGE = 0.5  # of full ink: where a stroke ends
FAINT_STROKE = 0.3  # of full ink: what hangs together with a stroke and is darker than this belongs to it

SMALLEST_DIGIT = 0.04  # of the picture's longer side
SMALLEST_PART = 0.02  # of the digit's largest part, in area: less is dust
PART_DISTANCE = 0.25  # of the digit's longer side: what is farther away is something else
RING = 0.15  # of the digit's longer side: what is around it
LIKE_INK = 0.25  # of the way from ink to paper: a pixel that near is like the ink
LEAST_CLEARANCE = 0.7  # share of the pixels around a digit that are unlike its ink
NEAR_EDGE = 0.04  # of the picture's longer side
SLIM = 4.0  # longer side over stroke: a digit drawn boldly has more, most holes of digits have less
WIDEST_DIGIT = 3.0  # width over height; the widest of MNIST's 60,000 training images has 2.5
RIM = 2  # pixels around the digit where its strokes fade


class Box(NamedTuple):
    """A rectangle; right and bottom are the first pixel, or the coordinate, outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)

    def contains(self, other: "Box") -> bool:
        """Tell whether another box lies within this one and is not the same."""
        inside = self.left <= other.left and self.top <= other.top
        return inside and self.right >= other.right and self.bottom >= other.bottom and self != other


@dataclass(frozen=True)
class Digit:
    """A digit cut out of a picture.

    Args:
        strokes: float32 (H, W), 1 full ink, 0 paper and all that is not the digit; a rim of `RIM` pixels around it.
        ink: Whether the ink is darker or lighter than the paper.
        box: Where it is in the picture, in pixels of the picture.
    """

    strokes: Floats
    ink: Ink
    box: Box


@dataclass(frozen=True)
class _Candidate:
    """What the digit would be if the ink were of one kind.

    Args:
        ink: The kind.
        strokes: float32 (H, W) as in `Digit`, for the whole copy that was looked at.
        box: Where it is in the copy, in whole pixels.
        depth: Difference between the strokes and the paper beside them, relative to the brighter of the two.
        clearance: Share of the pixels around the box that are not like its ink.
        slimness: The longer side of its largest part over that part's mean stroke; 2 for a disc.
    """

    ink: Ink
    strokes: Floats
    box: Box
    depth: float
    clearance: float
    slimness: float


def find_digit(grey: NDArray[np.uint8], kinds: tuple[Ink, ...]) -> Digit | None:
    """Return the digit in a grey picture (H, W), or None where there is none.

    Args:
        grey: The picture.
        kinds: The kinds of ink to look for.
    """
    picture = Image.fromarray(grey)
    window = Box(0, 0, picture.width, picture.height)
    copy = _copy(picture, window)
    candidates = [candidate for kind in kinds if (candidate := _candidate(copy, kind))]
    if not candidates:
        return None
    digit = candidates[0] if len(candidates) == 1 else _likelier(*candidates)
    place = _in_picture(digit.box, window, copy)
    around = SURROUNDINGS * place.size
    closer = Box(
        max(0, np.floor(place.left - around)),
        max(0, np.floor(place.top - around)),
        min(picture.width, np.ceil(place.right + around)),
        min(picture.height, np.ceil(place.bottom + around)),
    )
    if seen_better := _candidate(close_copy := _copy(picture, closer), digit.ink):
        digit, window, copy = seen_better, closer, close_copy
    left, top, right, bottom = (int(edge) for edge in digit.box)
    strokes = np.pad(digit.strokes, RIM)[top : bottom + 2 * RIM, left : right + 2 * RIM]
    return Digit(strokes, digit.ink, _in_picture(digit.box, window, copy))


def _copy(picture: Image.Image, window: Box) -> Floats:
    width, height = window.right - window.left, window.bottom - window.top
    scale = min(1.0, WORKING_SIZE / window.size)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX, box=window), np.float32)


def _in_picture(box: Box, window: Box, copy: Floats) -> Box:
    across = (window.right - window.left) / copy.shape[1]
    down = (window.bottom - window.top) / copy.shape[0]
    return Box(
        window.left + box.left * across,
        window.top + box.top * down,
        window.left + box.right * across,
        window.top + box.bottom * down,
    )


def _candidate(grey: Floats, kind: Ink) -> _Candidate | None:
    found = contrast(grey, kind)
    # Of neighbouring pixels few are divided by an edge. 1.4826: a normal distribution's deviation from its median one.
    noise = 1.4826 * float(np.median(np.abs(np.diff(found, axis=1)))) / np.sqrt(2) if found.shape[1] > 1 else 0.0
    count = max(4, round(DARKEST_SHARE * found.size))
    full = float(np.sort(found, axis=None)[-count:].mean())
    if full < max(FAINTEST_INK, NOISE_MARGIN * noise):
        return None
    ink = without_lines(np.clip(found / full, 0, 1))
    components = connected_components(ink >= FAINT_STROKE)
    chosen = _parts_of_digit(components, ink >= EDGE)
    if not len(chosen):
        return None
    inside = np.isin(components.numbers, chosen + 1)
    boxes = components.boxes[chosen]
    box = Box(*(int(edge) for edge in (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))))
    near = thickened(inside.astype(np.float32), RIM) > 0
    inked = float(np.median(grey[inside]))
    paper = float(np.median(grey[near & ~inside])) if (near & ~inside).any() else inked
    around = grey[_ring(box, grey.shape)]
    clearance = float((np.abs(around - inked) > LIKE_INK * abs(paper - inked)).mean()) if around.size else 1.0
    if clearance < LEAST_CLEARANCE:
        return None
    depth = abs(paper - inked) / max(paper, inked, DARKEST_PAPER)
    largest = chosen[np.argmax(components.areas[chosen])]
    size = float((components.boxes[largest, 2:] - components.boxes[largest, :2]).max())
    slimness = size / stroke_width(np.where(components.numbers == largest + 1, ink, 0))
    return _Candidate(kind, np.where(near, ink, 0), box, depth, clearance, slimness)


def _ring(box: Box, shape: tuple[int, int]) -> Mask:
    reach = max(2, round(RING * box.size))
    ring = np.zeros(shape, bool)
    for distance, value in ((reach, True), (1, False)):
        rows = slice(max(0, int(box.top) - distance), int(box.bottom) + distance)
        ring[rows, max(0, int(box.left) - distance) : int(box.right) + distance] = value
    return ring


def _parts_of_digit(components: Components, dark: Mask) -> NDArray[np.int64]:
    """Return which components make up the digit: the largest that could be one, and what lies near it."""
    height, width = components.numbers.shape
    boxes, areas = components.boxes, components.areas
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    sizes = np.maximum(widths, heights)
    cores = np.bincount(components.numbers[dark], minlength=len(areas) + 1)[1:]
    at_edge = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2] == width) | (boxes[:, 3] == height)
    possible = (sizes >= max(3, SMALLEST_DIGIT * max(height, width))) & (widths <= WIDEST_DIGIT * heights) & (cores > 0)
    if (possible & ~at_edge).any():
        possible &= ~at_edge  # what reaches the edge is rather a line, a margin, the table or the neighbour
    if not possible.any():
        return np.zeros(0, np.int64)
    largest = int(np.argmax(np.where(possible, cores, -1)))
    parts = (areas >= SMALLEST_PART * areas[largest]) & (cores > 0) & (at_edge <= at_edge[largest])
    digit = np.arange(len(areas)) == largest
    while True:
        left, top = boxes[digit, :2].min(axis=0)
        right, bottom = boxes[digit, 2:].max(axis=0)
        beside = np.maximum(boxes[:, 0] - right, left - boxes[:, 2])
        over = np.maximum(boxes[:, 1] - bottom, top - boxes[:, 3])
        grown = digit | parts & (np.maximum(beside, over) <= PART_DISTANCE * sizes[largest])
        if (grown == digit).all():
            return np.flatnonzero(digit)
        digit = grown


def _likelier(one: _Candidate, other: _Candidate) -> _Candidate:
    """Return which of two candidates is the digit; the other is then what shows between its strokes or beside it."""
    weaker, stronger = sorted((one, other), key=lambda candidate: candidate.depth)
    if weaker.depth < 0.5 * stronger.depth:
        return stronger
    if abs(one.clearance - other.clearance) > 0.03:
        return max(one, other, key=lambda candidate: candidate.clearance)
    for outer, inner in ((one, other), (other, one)):
        if outer.box.contains(inner.box):
            return inner if _is_paper_around(outer, inner) else outer
    return stronger


def _is_paper_around(outer: _Candidate, inner: _Candidate) -> bool:
    """Tell paper with a digit on it from a digit with a hole: paper nears the picture's edges, and a digit is slim."""
    height, width = outer.strokes.shape
    edges_neared = _edges_within(NEAR_EDGE * max(height, width), outer.box, height, width)
    encloses = edges_neared >= 2 and not _edges_within(0, inner.box, height, width)
    return encloses and inner.slimness > SLIM and bool(outer.strokes.sum() > 3 * inner.strokes.sum())


def _edges_within(distance: float, box: Box, height: int, width: int) -> int:
    left, top, right, bottom = box
    return sum((left <= distance, top <= distance, right >= width - distance, bottom >= height - distance))
