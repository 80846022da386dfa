"""Turn a person's image of a digit into 28×28 pixels as MNIST's makers did.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used
by the normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the pixels,
and translating the image so as to position this point at the center of the 28x28 field." (http://yann.lecun.com/exdb/mnist/)

Because images come from other sources than NIST, two steps are added: everything that is not the digit is removed, and
strokes thinner or thicker than nearly all of MNIST's are adjusted towards them.
"""

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning.console import printable
from mnist_lightning.errors import ImageError
from mnist_lightning.images.reader import flatten, read_image
from mnist_lightning.inference.digits.binarize import Floats, Ink, dilate, stroke_width
from mnist_lightning.inference.digits.locate import RIM, Box, find_digit

SIDE = 28  # of the resulting image
FIELD = 20  # of the square that the digit is fitted into

# Of the stroke widths in MNIST's training images, as `stroke_width` measures them, 18 % are below the first and 8 %
# above the second, in pixels. Chosen on validation digits: `benchmarks/pictures.py` redraws them with thin and thick
# pens.
THINNEST_STROKE, THICKEST_STROKE = 2.0, 3.6

# Contrast, relative to full ink, that becomes black and white: removes the paper's noise and fills the strokes.
BLACK, WHITE = 0.2, 0.8

WHOLE_IMAGE = Box(0, 0, 1, 1)

Pixels = NDArray[np.uint8]
InkChoice = Literal["auto", "dark", "light"]

INKS: dict[InkChoice, tuple[Ink, ...]] = {"auto": ("dark", "light"), "dark": ("dark",), "light": ("light",)}


@dataclass(frozen=True)
class NetworkInput:
    """An image as the network sees it, and how it was found."""

    # uint8 (28, 28), light on black as MNIST's own images; for a network that was trained on folders of images, the
    # whole image in the size and colours that the network takes.
    pixels: Pixels
    ink: Ink | None  # whether the digit is darker or lighter than the background; None if no digit was looked for
    box: Box = WHOLE_IMAGE  # of the digit, in fractions of the upright image's width and height


def preprocess(image: Image.Image | Pixels, ink: InkChoice = "auto") -> NetworkInput:
    """Find the digit in an image and return it in the form of MNIST's images.

    A digit that already has this form (20 pixels long, on a uniform black or white background) is centred and otherwise
    left unchanged. Therefore MNIST's own images come out as they are.

    Args:
        image: A Pillow image of any mode, or uint8 (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.
        ink: Whether the digit is darker or lighter than the background; `auto` detects it.

    Raises:
        ImageError: If there is no digit in it, or the values of a 32-bit image have an unknown range.
        ValueError: If an array has another type or shape, or `ink` another value.
    """
    if ink not in INKS:
        raise ValueError(f"ink must be auto, dark or light, got {ink!r}")
    grey = np.asarray(to_plain_image(image).convert("L"))
    if found := _find_normalised_digit(grey, INKS[ink]):
        return found
    digit = find_digit(grey, INKS[ink])
    if digit is None:
        raise ImageError("no digit found")
    return NetworkInput(_centre(_fit_into_field(digit.strokes)), digit.ink, _as_fractions(digit.box, grey))


def preprocess_file(path: str | os.PathLike[str], ink: InkChoice = "auto") -> tuple[Image.Image, NetworkInput]:
    """Return the image in a file, as `read_image` does, and the result of `preprocess`; errors name the file."""
    image = read_image(path)
    try:
        return image, preprocess(image, ink)
    except ImageError as error:
        raise ImageError(f"{printable(os.fspath(path))}: {error}") from error


def preprocess_drawing(foreground: Pixels) -> Pixels:
    """Return a drawing, uint8 (H, W) from 0 for background to 255 for full ink, in the form of MNIST's images.

    Everything that is drawn belongs to the digit. If nothing is drawn, or it is too faint, that is an ImageError.
    """
    if not foreground.any():
        raise ImageError("no digit found")
    return _centre(_fit_into_field(np.pad(_crop(foreground)[0].astype(np.float32) / 255, RIM)))


def to_plain_image(image: Image.Image | Pixels) -> Image.Image:
    """Return an image in the form that `images.reader.flatten` defines; arguments and errors as in `preprocess`."""
    if isinstance(image, Image.Image):
        try:
            return flatten(image)
        except ValueError as error:
            raise ImageError(str(error)) from error
    has_known_colours = image.shape[2:] in ((), (3,), (4,))
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not has_known_colours or 0 in image.shape:
        raise ValueError(
            "an image must be uint8 (H, W), (H, W, 3) or (H, W, 4) and not empty, "
            f"got {image.dtype} {image.shape}; list(batch) splits a batch"
        )
    return flatten(Image.fromarray(image))


def _find_normalised_digit(grey: Pixels, inks: tuple[Ink, ...]) -> NetworkInput | None:
    """Return the digit in an image (H, W) whose digit is already normalised, or None for any other image."""
    for ink in inks:
        foreground = grey if ink == "light" else 255 - grey
        if not foreground.any():
            continue
        digit, box = _crop(foreground)
        # All of MNIST's 70,000 images are 20 pixels long, a few 19; the brightest pixel of each is 254 or 255.
        if max(digit.shape) in (FIELD - 1, FIELD) and digit.max() >= 254:
            return NetworkInput(_centre(digit), ink, _as_fractions(box, grey))
    return None


def _crop(foreground: Pixels) -> tuple[Pixels, Box]:
    """Return the part of an image (H, W), not all zero, that contains all pixels above 0, and its bounding box."""
    left, top, right, bottom = Image.fromarray(foreground).getbbox() or (0, 0, 0, 0)
    return foreground[top:bottom, left:right], Box(left, top, right, bottom)


def _as_fractions(box: Box, image: Pixels) -> Box:
    height, width = image.shape
    return Box(*(float(edge / side) for edge, side in zip(box, (width, height, width, height), strict=True)))


def _fit_into_field(strokes: Floats) -> Pixels:
    """Return strokes, which have a rim of `RIM`, resized to a length of `FIELD` pixels: uint8 (h, w)."""
    strokes = np.clip((strokes - BLACK) / (WHITE - BLACK), 0, 1)
    if not strokes.any():
        raise ImageError("no digit found")
    rim = RIM
    scale = FIELD / (max(strokes.shape) - 2 * rim)
    width = stroke_width(strokes) * scale
    growth = (np.clip(width, THINNEST_STROKE, THICKEST_STROKE) - width) / 2 / scale
    if growth:
        margin = max(0, int(growth))
        strokes = dilate(np.pad(strokes, margin), growth)
        rim += margin - round(growth)
    height, width = (side - 2 * rim for side in strokes.shape)
    scale = FIELD / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    resized = Image.fromarray(strokes).resize(size, resampling, box=(rim, rim, rim + width, rim + height))
    values = np.asarray(resized).clip(0, None)
    pixels: Pixels = np.rint(values * (255 / values.max())).astype(np.uint8)
    return pixels


def _centre(pixels: Pixels) -> Pixels:
    """Return uint8 (28, 28) with the centre of mass of pixels (h, w) at row and column [13.5, 14.5), MNIST's centre."""
    from scipy import ndimage

    height, width = pixels.shape
    offset = np.ceil((SIDE - 1) / 2 - np.array(ndimage.center_of_mass(pixels.astype(np.float64))))
    top, left = offset.clip(0, (SIDE - height, SIDE - width)).astype(int)
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + height, left : left + width] = pixels
    return field
