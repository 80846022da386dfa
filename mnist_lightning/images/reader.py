"""Read a picture file that a person names: bounded in size, of a known format, upright, flat. Pillow, and no other.

Believes neither a file's name nor its header. What the picture shows is the business of `pictures`.
"""

import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mnist_lightning.console import printable
from mnist_lightning.errors import ImageError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif")
PHONES_SUFFIXES = (".heic", ".heif", ".avif")  # not read, but a person who has them wants to be told

CONTACT_SHEET_SUFFIX = ".input.png"  # of what `predict --save_inputs` writes: no picture to label

MAX_FILE_BYTES = 20 * 2**20  # a photo of 50 megapixels has about 15 MB as a JPEG
# What is decoded whole takes up to 12 bytes a pixel; a JPEG is decoded at a half, a quarter or an eighth of its size.
MAX_PIXELS = 16_000_000
MAX_JPEG_PIXELS = 50_000_000
DETAIL = 1024  # pixels of the longer side that always remain; larger pictures are reduced by a whole number

# What Pillow raises on damaged bytes: the list of its own fuzz tests, and what a less careful decoder in Python may.
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    MemoryError,
    ValueError,
    NotImplementedError,  # what the base class of decoders in Python answers for one that lacks a method
    OverflowError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    struct.error,
)

UPRIGHT = {  # what undoes each EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_image_files(places: Sequence[str]) -> tuple[list[Path], list[ImageError]]:
    """Return the picture files that files and folders name, and what is wrong with some of these.

    A file is taken whatever it is called. Of a folder and all folders in it, the files with a suffix of `SUFFIXES` or
    `PHONES_SUFFIXES` are taken, in the order of their names; hidden ones, and folders behind symbolic links, are left
    out.

    Args:
        places: Paths of files and folders.
    """
    paths: list[Path] = []
    faults: list[ImageError] = []

    def note(error: OSError) -> None:
        faults.append(ImageError(f"{printable(str(error.filename))}: cannot be read: {error.strerror}"))

    for place in places:
        if not place:
            faults.append(ImageError("an empty name names no picture"))
            continue
        if not os.path.isdir(place):
            paths.append(Path(place))
            continue
        found = []
        for folder, subfolders, names in os.walk(place, onerror=note):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            pictures = sorted(
                name for name in names if name.lower().endswith(SUFFIXES + PHONES_SUFFIXES) and not name.startswith(".")
            )
            found += [Path(folder, name) for name in pictures if not name.endswith(CONTACT_SHEET_SUFFIX)]
        if not found:
            faults.append(ImageError(f"{printable(place)}: no pictures in it ({', '.join(SUFFIXES)})"))
        paths += found
    return paths, faults


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the first frame of a picture file, as `flattened` does.

    Raises:
        ImageError: If it is missing, no regular file, too large, of another format, or damaged.
    """
    name = printable(os.fspath(path))
    data = _read_bytes(path, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it makes the best of; sizes are checked below
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image, _silent_decoder(image):
                _check_size(image, name)
                image.draft("RGB", (DETAIL, DETAIL))  # a JPEG is decoded no larger than needed
                return flattened(image)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels; save the picture smaller") from None
        except UnidentifiedImageError:
            raise ImageError(f"{name}: not a PNG, JPEG, BMP, WebP, TIFF or GIF picture, or a damaged one") from None
        except DECODING_ERRORS as error:
            reason = printable(str(error)) or type(error).__name__
            raise ImageError(f"{name}: damaged, or of a kind that is not supported: {reason[:100]}") from error


def flattened(image: Image.Image) -> Image.Image:
    """Return a picture as it is seen: upright, on white paper where it is transparent, in 8 bits.

    Pixels of up to 16 bits are scaled to 8, of 32 bits too where their values are those of 8 or 16 bits or lie in
    [0, 1]. A picture of more than `DETAIL` pixels on its longer side is reduced by a whole number.

    Args:
        image: A Pillow image of any mode.

    Returns:
        An image of mode `L` or `RGB`.

    Raises:
        ValueError: If the values of a 32-bit picture lie elsewhere.
    """
    image.load()
    orientation = _orientation(image)
    transparent = False
    if image.mode.startswith(("I", "F")):
        flat = _in_8_bits(image)
    elif image.mode == "LAB":
        flat = image.getchannel(0)  # lightness
    else:
        transparent = image.has_transparency_data
        mode = "RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB"
        flat = image if image.mode == mode else image.convert(mode)
    factor = max(1, max(flat.size) // DETAIL)
    flat = flat.reduce(factor) if factor > 1 else flat.copy()
    if transparent:
        paper = Image.new("RGB", flat.size, "white")
        paper.paste(flat, mask=flat.getchannel("A"))
        flat = paper
    flat.info.clear()  # of its EXIF too, or it would be turned once more by whoever reads that
    return flat.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else flat


def _read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        # Asked before opening, because opening a FIFO waits until somebody writes to it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(f"{name}: not a regular file")
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file or folder") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"{name}: more than {MAX_FILE_BYTES >> 20} MiB; save the picture smaller")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    return data


def _check_size(image: Image.Image, name: str) -> None:
    limit = MAX_JPEG_PIXELS if image.format in ("JPEG", "MPO") else MAX_PIXELS
    if image.width * image.height > limit:
        size = f"{image.width}×{image.height} pixels"
        raise ImageError(f"{name}: {size}, more than {limit // 10**6} megapixels; save the picture smaller")


@contextmanager
def _silent_decoder(image: Image.Image) -> Iterator[None]:
    """Keep libtiff from writing what it thinks of a damaged file to the process's stderr, past Python."""
    if image.format != "TIFF":
        yield
        return
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except DECODING_ERRORS:
        return None  # damaged EXIF; the picture itself was decoded


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey picture of one wide number a pixel in 8 bits; Pillow's own conversion would clip to 255."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = 12 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 16
        grey = (values >> (bits - 8)).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
    else:
        least, most = float(values.min()), float(values.max())
        limit = next((limit for limit in (1, 255, 65535) if most <= limit and (limit > 1 or image.mode == "F")), None)
        if limit is None or not least >= 0:
            raise ValueError(f"32-bit values from {least:g} to {most:g}, where 0 to 1, 255 or 65535 are understood")
        grey = np.rint(values * (255 / limit)).astype(np.uint8)
    white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return Image.fromarray(255 - grey if white_is_zero else grey)
