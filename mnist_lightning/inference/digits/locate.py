"""Find the digit in a grey image despite shadows, table edges, ruled lines and dust.

The image is searched twice, each time in a copy of at most `WORKING_SIZE` pixels a side: first the whole image, to find
out where the digit is and whether it is dark or light, then the digit and its surroundings, for more detail.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning.inference.digits.binarize import (
    DARKEST_BACKGROUND,
    Floats,
    Ink,
    Mask,
    contrast,
    dilate,
    stroke_width,
    without_lines,
)

WORKING_SIZE = 256  # pixels; a digit of a tenth of the image still has 25
SURROUNDINGS = 0.5  # on each side of the digit, as a fraction of its longer side

MIN_CONTRAST = 0.07  # of the darkest ink with the background; a pencil has about 0.2
NOISE_MARGIN = 6.0  # standard deviations of the noise by which the darkest ink must stand out
FULL_INK_FRACTION = 0.001  # of the pixels: those that stand out most, whose mean contrast is that of full ink
STROKE_LEVEL = 0.5  # of full ink: the edge of a stroke
FAINT_LEVEL = 0.3  # of full ink: pixels above it that are connected with a stroke belong to it

MIN_DIGIT_SIZE = 0.04  # of the image's longer side
MIN_COMPONENT_AREA = 0.02  # of the digit's largest component; smaller ones are dust
MAX_COMPONENT_DISTANCE = 0.25  # of the digit's longer side; components farther away are something else
RING = 0.15  # width of the ring around the digit, as a fraction of its longer side
SIMILAR_TO_INK = 0.25  # of the difference between ink and background; a pixel nearer to the ink than this resembles it
MIN_CLEARANCE = 0.7  # fraction of the pixels around a digit that must not resemble its ink
NEAR_EDGE = 0.04  # of the image's longer side
SLIM = 4.0  # longer side over stroke width: higher for digits, even boldly drawn ones, lower for most holes of digits
MAX_ASPECT_RATIO = 3.0  # width over height; the widest of MNIST's 60,000 training images has 2.5
RIM = 2  # pixels around the digit in which its strokes fade


class Box(NamedTuple):
    """A bounding box; right and bottom are the first pixel, or the coordinate, outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True)
class Digit:
    """A digit that was found in an image, or a candidate for it in a working copy of the image."""

    ink: Ink
    # (H, W), 1 for full ink, 0 for everything that is not the digit: for a candidate the size of the working copy, for
    # the digit that was found its box with a rim of `RIM` pixels.
    strokes: Floats
    box: Box  # in pixels of the working copy or, once it was found, of the image
    depth: float  # difference between the strokes and the background beside them, relative to the brighter of the two
    clearance: float  # fraction of the pixels around the box that do not resemble the ink
    slimness: float  # the longer side of its largest component over the mean stroke width of it; 2 for a disc


def find_digit(grey: NDArray[np.uint8], inks: tuple[Ink, ...]) -> Digit | None:
    """Return the digit in a grey image (H, W), dark or light as `inks` allows, or None if there is none."""
    image = Image.fromarray(grey)
    window = Box(0, 0, image.width, image.height)
    copy = _working_copy(image, window)
    candidates = [candidate for ink in inks if (candidate := _find_candidate(copy, ink))]
    if not candidates:
        return None
    digit = candidates[0] if len(candidates) == 1 else _more_likely(*candidates)
    place = _to_image_coordinates(digit.box, window, copy)
    margin = SURROUNDINGS * place.size
    start = np.floor(np.subtract(place[:2], margin)).clip(0)
    stop = np.minimum(np.ceil(np.add(place[2:], margin)), image.size)
    close_up = Box(*start, *stop)
    if refined := _find_candidate(close_copy := _working_copy(image, close_up), digit.ink):
        digit, window, copy = refined, close_up, close_copy
    left, top, right, bottom = (int(edge) for edge in digit.box)
    strokes = np.pad(digit.strokes, RIM)[top : bottom + 2 * RIM, left : right + 2 * RIM]
    return replace(digit, strokes=strokes, box=_to_image_coordinates(digit.box, window, copy))


def _working_copy(image: Image.Image, window: Box) -> Floats:
    width, height = window.right - window.left, window.bottom - window.top
    scale = min(1.0, WORKING_SIZE / window.size)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BOX, box=window), np.float32)


def _to_image_coordinates(box: Box, window: Box, copy: Floats) -> Box:
    origin = window[:2]
    scale = np.subtract(window[2:], origin) / copy.shape[::-1]
    return Box(*(origin + box[:2] * scale), *(origin + box[2:] * scale))


def _find_candidate(grey: Floats, ink: Ink) -> Digit | None:
    from scipy import ndimage

    found = contrast(grey, ink)
    # Few neighbouring pixels differ by an edge. 1.4826: a normal distribution's standard over its median deviation.
    noise = 1.4826 * float(np.median(np.abs(np.diff(found, axis=1)))) / np.sqrt(2) if found.shape[1] > 1 else 0.0
    count = max(4, round(FULL_INK_FRACTION * found.size))
    full_ink = float(np.sort(found, axis=None)[-count:].mean())
    if full_ink < max(MIN_CONTRAST, NOISE_MARGIN * noise):
        return None
    foreground = without_lines(np.clip(found / full_ink, 0, 1))
    components, _ = ndimage.label(foreground >= FAINT_LEVEL, structure=np.ones((3, 3)))  # numbered from 1
    areas = np.bincount(components.ravel())[1:]
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(components)]
    boxes = np.array(edges, np.int64).reshape(-1, 4)
    chosen = _components_of_digit(components, areas, boxes, foreground >= STROKE_LEVEL)
    if not len(chosen):
        return None
    inside = np.isin(components, chosen + 1)
    box = Box(*boxes[chosen, :2].min(axis=0).tolist(), *boxes[chosen, 2:].max(axis=0).tolist())
    near = dilate(inside.astype(np.float32), RIM) > 0
    ink_level = float(np.median(grey[inside]))
    background = float(np.median(grey[near & ~inside])) if (near & ~inside).any() else ink_level
    around = grey[_ring(box, grey.shape)]
    dissimilar = np.abs(around - ink_level) > SIMILAR_TO_INK * abs(background - ink_level)
    clearance = float(dissimilar.mean()) if around.size else 1.0
    if clearance < MIN_CLEARANCE:
        return None
    depth = abs(background - ink_level) / max(background, ink_level, DARKEST_BACKGROUND)
    largest = chosen[np.argmax(areas[chosen])]
    size = float((boxes[largest, 2:] - boxes[largest, :2]).max())
    slimness = size / stroke_width(np.where(components == largest + 1, foreground, 0))
    return Digit(ink, np.where(near, foreground, 0), box, depth, clearance, slimness)


def _ring(box: Box, shape: tuple[int, int]) -> Mask:
    """Return a mask (H, W) of the pixels around a box."""
    left, top, right, bottom = map(int, box)
    ring = np.zeros(shape, bool)
    for distance, value in ((max(2, round(RING * box.size)), True), (1, False)):
        rows = slice(max(0, top - distance), bottom + distance)
        ring[rows, max(0, left - distance) : right + distance] = value
    return ring


def _components_of_digit(
    components: NDArray[np.int32], areas: NDArray[np.int64], boxes: NDArray[np.int64], strokes: Mask
) -> NDArray[np.int64]:
    """Return the indices of the components that form the digit: the largest that may be one, and those near it.

    Components (H, W) are numbered from 1, and 0 is background. Each of the N has an area and a box (left, top, right,
    bottom); strokes (H, W) are the pixels that are dark enough for one.
    """
    height, width = components.shape
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    sizes = np.maximum(widths, heights)
    cores = np.bincount(components[strokes], minlength=len(areas) + 1)[1:]
    at_edge = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2] == width) | (boxes[:, 3] == height)
    large = sizes >= max(3, MIN_DIGIT_SIZE * max(height, width))
    possible = large & (widths <= MAX_ASPECT_RATIO * heights) & (cores > 0)
    if (possible & ~at_edge).any():
        possible &= ~at_edge  # what touches the edge is probably a line, a margin, the table or the neighbour
    if not possible.any():
        return np.zeros(0, np.int64)
    largest = int(np.argmax(np.where(possible, cores, -1)))
    eligible = (areas >= MIN_COMPONENT_AREA * areas[largest]) & (cores > 0) & (at_edge <= at_edge[largest])
    digit = np.arange(len(areas)) == largest
    while True:
        left, top = boxes[digit, :2].min(axis=0)
        right, bottom = boxes[digit, 2:].max(axis=0)
        x_gaps = np.maximum(boxes[:, 0] - right, left - boxes[:, 2])
        y_gaps = np.maximum(boxes[:, 1] - bottom, top - boxes[:, 3])
        grown = digit | eligible & (np.maximum(x_gaps, y_gaps) <= MAX_COMPONENT_DISTANCE * sizes[largest])
        if (grown == digit).all():
            return np.flatnonzero(digit)
        digit = grown


def _more_likely(one: Digit, other: Digit) -> Digit:
    """Return the candidate that is the digit; the other is then the background between its strokes or beside it."""
    weaker, stronger = sorted((one, other), key=lambda candidate: candidate.depth)
    if weaker.depth < 0.5 * stronger.depth:
        return stronger
    if abs(one.clearance - other.clearance) > 0.03:
        return max(one, other, key=lambda candidate: candidate.clearance)
    for outer, inner in ((one, other), (other, one)):
        margins = np.subtract(inner.box, outer.box) * (1, 1, -1, -1)
        if (margins >= 0).all() and margins.any():
            return inner if _is_paper_around(outer, inner) else outer
    return stronger


def _is_paper_around(outer: Digit, inner: Digit) -> bool:
    """Return whether the outer candidate is paper with a digit on it, rather than a digit with a hole.

    Paper comes near the image's edges, and a digit is slim.
    """
    height, width = outer.strokes.shape
    outer_gaps, inner_gaps = (
        np.array([box.left, box.top, width - box.right, height - box.bottom]) for box in (outer.box, inner.box)
    )
    encloses = (outer_gaps <= NEAR_EDGE * max(height, width)).sum() >= 2 and (inner_gaps > 0).all()
    return bool(encloses and inner.slimness > SLIM and outer.strokes.sum() > 3 * inner.strokes.sum())
