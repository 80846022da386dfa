"""Turn a person's picture of a digit into 28×28 pixels as MNIST's makers did.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio. The resulting images contain grey levels as a result of the anti-aliasing technique used
by the normalization algorithm. The images were centered in a 28x28 image by computing the center of mass of the pixels,
and translating the image so as to position this point at the center of the 28x28 field." (http://yann.lecun.com/exdb/mnist/)

Two things are added, because pictures come from elsewhere than NIST: everything that is not the digit is left out, and
strokes thinner or thicker than nearly all of MNIST's are brought nearer to them. No torch.
"""

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning.console import printable
from mnist_lightning.errors import ImageError
from mnist_lightning.images.reader import flattened, read_image
from mnist_lightning.inference.digits.binarize import Floats, Ink, stroke_width, thickened
from mnist_lightning.inference.digits.locate import RIM, Box, find_digit

SIDE = 28  # of the prepared picture
FIELD = 20  # of the square that the digit is fitted into

# Of stroke widths in MNIST's training images, as `stroke_width` measures them, 18 % are below the first and 8 % above
# the second, in pixels. Chosen on validation digits: `benchmarks/pictures.py` redraws them with thin and thick pens.
THINNEST_STROKE, THICKEST_STROKE = 2.0, 3.6

# Contrast, relative to full ink, that becomes black and white: noise of the paper goes, the inside of strokes fills.
BLACK, WHITE = 0.2, 0.8

WHOLE = Box(0, 0, 1, 1)

Pixels = NDArray[np.uint8]
InkChoice = Literal["auto", "dark", "light"]

KINDS: dict[InkChoice, tuple[Ink, ...]] = {"auto": ("dark", "light"), "dark": ("dark",), "light": ("light",)}


@dataclass(frozen=True)
class NetworkInput:
    """A picture as the network sees it, and what was decided on the way.

    Args:
        pixels: uint8 (28, 28), light ink on black, in the form of MNIST's own; for a network that was trained on
            folders of pictures, the whole picture as `picture_form.letterbox` makes it.
        ink: Whether the picture's ink is darker or lighter than its paper; None where no ink was looked for.
        box: Where the digit is: left, top, right, bottom as fractions of the upright picture's width and height.
    """

    pixels: Pixels
    ink: Ink | None
    box: Box = WHOLE


def preprocess(picture: Image.Image | Pixels, ink: InkChoice = "auto") -> NetworkInput:
    """Find the digit in a picture and return it in the form of MNIST's images.

    A digit that has this form already, 20 pixels long on an even ground of black or white, is centred and otherwise
    left as it is; so MNIST's own images come out unchanged.

    Args:
        picture: A Pillow image of any mode, or uint8 (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.
        ink: Whether the ink is darker or lighter than the paper; `auto` finds out.

    Raises:
        ImageError: If there is no digit in it, or an image's values cannot be understood.
        ValueError: If an array has another type or shape, or `ink` another value.
    """
    if ink not in KINDS:
        raise ValueError(f"ink must be auto, dark or light, got {ink!r}")
    grey = np.asarray(as_flat(picture).convert("L"))
    if normalised := _normalised_already(grey, KINDS[ink]):
        return normalised
    digit = find_digit(grey, KINDS[ink])
    if digit is None:
        raise ImageError("no digit found")
    return NetworkInput(_centred(_fitted(digit.strokes)), digit.ink, _share(digit.box, grey))


def preprocess_file(path: str | os.PathLike[str], ink: InkChoice = "auto") -> tuple[Image.Image, NetworkInput]:
    """Return the picture in a file, upright, flat and no larger than needed, and what `preprocess` makes of it.

    Raises:
        ImageError: If the file cannot be read as a picture, or the picture shows no digit; names the file.
        ValueError: If `ink` has another value.
    """
    picture = read_image(path)
    try:
        return picture, preprocess(picture, ink)
    except ImageError as error:
        raise ImageError(f"{printable(os.fspath(path))}: {error}") from error


def preprocess_drawing(ink: Pixels) -> Pixels:
    """Return a drawing in the form of MNIST's images, uint8 (28, 28): all that is drawn is the digit.

    Args:
        ink: uint8 (H, W), 0 paper, 255 full ink.

    Raises:
        ImageError: If nothing is drawn, or only too faintly.
    """
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ImageError("no digit found")
    strokes = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
    return _centred(_fitted(np.pad(strokes, RIM)))


def as_flat(picture: Image.Image | Pixels) -> Image.Image:
    """Return a picture as `picture_files.flattened` does.

    Args:
        picture: As for `preprocess`.

    Raises:
        ImageError: If an image's values cannot be understood.
        ValueError: If an array has another type or shape.
    """
    if isinstance(picture, Image.Image):
        try:
            return flattened(picture)
        except ValueError as error:
            raise ImageError(str(error)) from error
    colours = picture.shape[2:] in ((), (3,), (4,))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or not colours or 0 in picture.shape:
        given = f"got {picture.dtype} {picture.shape}; list(batch) splits a batch"
        raise ValueError(f"a picture must be uint8 (H, W), (H, W, 3) or (H, W, 4), none empty, {given}")
    return flattened(Image.fromarray(picture))


def _normalised_already(grey: Pixels, kinds: tuple[Ink, ...]) -> NetworkInput | None:
    for kind in kinds:
        pixels = grey if kind == "light" else 255 - grey
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            continue
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        # All of MNIST's 70,000 images are 20 pixels long, a few 19; the brightest pixel of each is 254 or 255.
        if max(bottom - top, right - left) in (FIELD - 1, FIELD) and pixels.max() >= 254:
            box = _share(Box(left, top, right, bottom), grey)
            return NetworkInput(_centred(pixels[top:bottom, left:right]), kind, box)
    return None


def _share(box: Box, grey: Pixels) -> Box:
    height, width = grey.shape
    return Box(*(float(edge / side) for edge, side in zip(box, (width, height, width, height), strict=True)))


def _fitted(strokes: Floats) -> Pixels:
    """Return strokes, which have a rim of `RIM`, resized to be `FIELD` pixels long: uint8 (h, w)."""
    strokes = np.clip((strokes - BLACK) / (WHITE - BLACK), 0, 1)
    if not strokes.any():  # fainter than what counts as ink
        raise ImageError("no digit found")
    rim = RIM
    scale = FIELD / (max(strokes.shape) - 2 * rim)
    width = stroke_width(strokes) * scale
    growth = (np.clip(width, THINNEST_STROKE, THICKEST_STROKE) - width) / 2 / scale
    if growth:
        margin = max(0, int(growth))
        strokes = thickened(np.pad(strokes, margin), growth)
        rim += margin - round(growth)
    height, width = (side - 2 * rim for side in strokes.shape)
    scale = FIELD / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    area_mean, smooth = Image.Resampling.BOX, Image.Resampling.BICUBIC
    resized = Image.fromarray(strokes).resize(
        size, area_mean if scale < 1 else smooth, box=(rim, rim, rim + width, rim + height)
    )
    values = np.asarray(resized).clip(0, None)
    pixels: Pixels = np.rint(values * (255 / values.max())).astype(np.uint8)
    return pixels


def _centred(pixels: Pixels) -> Pixels:
    """Return uint8 (28, 28) with the centre of mass of pixels (h, w) at row and column [13.5, 14.5), MNIST's centre."""
    field = np.zeros((SIDE, SIDE), np.uint8)
    places = []
    for axis in (0, 1):
        mass = pixels.sum(axis=1 - axis, dtype=np.float64)
        centre = float((mass * np.arange(len(mass))).sum() / mass.sum())
        places.append(min(max(0, int(np.ceil((SIDE - 1) / 2 - centre))), SIDE - len(mass)))
    top, left = places
    field[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return field
