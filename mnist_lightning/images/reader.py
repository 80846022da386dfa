"""Read a person's image file safely: limited in size, of a known format, upright, in 8 bits; resize it to a square.

Neither a file's name nor its header is trusted. The only decoder is Pillow.
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
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mnist_lightning.console import printable
from mnist_lightning.errors import ImageError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif")
UNSUPPORTED_SUFFIXES = (".heic", ".heif", ".avif")  # found all the same, so that their owner gets an error message

CONTACT_SHEET_SUFFIX = ".input.png"  # of the files that `predict --save_inputs` writes, which are not images to label

MAX_FILE_BYTES = 20 * 2**20  # a photo of 50 megapixels has about 15 MB as a JPEG
# An image that is decoded whole takes up to 12 bytes a pixel; a JPEG is decoded at 1/2, 1/4 or 1/8 of its size.
MAX_PIXELS = 16_000_000
MAX_JPEG_PIXELS = 50_000_000
MIN_DETAIL = 1024  # pixels of the longer side that always remain; larger images are reduced by an integer factor

# What Pillow raises for corrupted bytes, according to its own fuzz tests, and what its Python decoders may add.
FUZZ_ERRORS = (OSError, SyntaxError, MemoryError, ValueError, NotImplementedError, OverflowError)
DECODING_ERRORS = (*FUZZ_ERRORS, LookupError, TypeError, AttributeError, EOFError, struct.error)


def find_image_files(places: Sequence[str]) -> tuple[list[Path], list[ImageError]]:
    """Return the image files that some files and folders stand for, and an error for each place that is not usable.

    A file is returned whatever its name. A folder stands for the files in it and its subfolders that have a suffix of
    `SUFFIXES` or `UNSUPPORTED_SUFFIXES`, sorted by name, except hidden ones and those behind symbolic links to folders.
    """
    paths: list[Path] = []
    errors: list[ImageError] = []

    def add_error(error: OSError) -> None:
        errors.append(ImageError(f"{printable(str(error.filename))}: cannot be read: {error.strerror}"))

    for place in places:
        if not os.path.isdir(place):
            paths.append(Path(place))
            continue
        found = []
        for folder, subfolders, names in os.walk(place, onerror=add_error):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            found += [Path(folder, name) for name in sorted(names) if _is_visible_image(name)]
        if not found:
            errors.append(ImageError(f"{printable(place)}: the folder contains no images ({', '.join(SUFFIXES)})"))
        paths += found
    return paths, errors


def _is_visible_image(name: str) -> bool:
    is_image = name.lower().endswith(SUFFIXES + UNSUPPORTED_SUFFIXES)
    return is_image and not name.startswith(".") and not name.endswith(CONTACT_SHEET_SUFFIX)


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the first frame of an image file, in the form that `flatten` defines.

    Raises:
        ImageError: If it is missing, not a regular file, too large, of another format, or corrupted.
    """
    name = printable(os.fspath(path))
    data = _read_bytes(path, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about what it can repair; sizes are checked below
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image, _silent_decoder(image):
                limit = MAX_JPEG_PIXELS if image.format in ("JPEG", "MPO") else MAX_PIXELS
                if image.width * image.height > limit:
                    size = f"{image.width}×{image.height} pixels"
                    raise ImageError(f"{name}: {size}, more than {limit // 10**6} megapixels; save the image smaller")
                image.draft("RGB", (MIN_DETAIL, MIN_DETAIL))  # decodes a JPEG no larger than needed
                return flatten(image)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels; save the image smaller") from None
        except UnidentifiedImageError:
            raise ImageError(f"{name}: not a PNG, JPEG, BMP, WebP, TIFF or GIF image, or a corrupted one") from None
        except DECODING_ERRORS as error:
            reason = printable(str(error)) or type(error).__name__
            raise ImageError(f"{name}: corrupted, or of an unsupported kind: {reason[:100]}") from error


def flatten(image: Image.Image) -> Image.Image:
    """Return an image as viewers display it: upright, in 8 bits, on white where it is transparent.

    Pixels of up to 16 bits are scaled to 8. So are pixels of 32 bits if their values are those of 8 or 16 bits, or lie
    in [0, 1]. An image with more than `MIN_DETAIL` pixels on its longer side is reduced by an integer factor. The mode
    of the result is `L` or `RGB`.

    Raises:
        ValueError: If the values of a 32-bit image have another range.
    """
    image.load()
    orientation = _orientation(image)
    transparent = False
    if image.mode.startswith(("I", "F")):
        flat = _to_8_bits(image)
    elif image.mode == "LAB":
        flat = image.getchannel(0)  # lightness
    else:
        transparent = image.has_transparency_data
        mode = "RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB"
        flat = image if image.mode == mode else image.convert(mode)
    factor = max(1, max(flat.size) // MIN_DETAIL)
    flat = flat.reduce(factor) if factor > 1 else flat.copy()
    if transparent:
        white = Image.new("RGB", flat.size, "white")
        white.paste(flat, mask=flat.getchannel("A"))
        flat = white
    flat.info.clear()  # including EXIF: whoever reads that would turn the image once more
    flat.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(flat)


def letterbox(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """Return an image resized with its aspect ratio kept, and centred on black: uint8 (size, size), or (size, size, 3).

    An image that already has this size keeps its pixels. One channel is grey (Pillow's ITU-R 601 luma), three are RGB.
    """
    converted = image.convert("L" if channels == 1 else "RGB")
    # Pillow's bilinear filter antialiases when it shrinks an image, as torchvision's `Resize` does.
    return np.array(ImageOps.pad(converted, (size, size), Image.Resampling.BILINEAR, color=0))


def _read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        # Checked before opening, because opening a FIFO blocks until another program writes to it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(f"{name}: not a regular file")
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file or folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"{name}: more than {MAX_FILE_BYTES >> 20} MiB; save the image smaller")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    return data


@contextmanager
def _silent_decoder(image: Image.Image) -> Iterator[None]:
    """Discard what libtiff writes about a corrupted file to the process's stderr, bypassing Python."""
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
        return None  # the EXIF data are corrupted, but the image itself was decoded


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Return a grey image with 16 or 32 bits a pixel in 8 bits; Pillow's own conversion clips values at 255."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = 12 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 16
        grey = (values >> (bits - 8)).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
    else:
        low, high = float(values.min()), float(values.max())
        limit = next((limit for limit in (1, 255, 65535) if high <= limit and (limit > 1 or image.mode == "F")), None)
        if limit is None or not low >= 0:
            raise ValueError(f"32-bit values must be in [0, 1], [0, 255] or [0, 65535], got {low:g} to {high:g}")
        grey = np.rint(values * (255 / limit)).astype(np.uint8)
    white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return Image.fromarray(255 - grey if white_is_zero else grey)
