"""Read and write IDX, the file format of MNIST and related data sets.

Checks everything that a file claims before relying on it, and raises a DatasetError that names file and byte; knows
nothing of checksums, folders or torch.

An IDX file (http://yann.lecun.com/exdb/mnist/, "the IDX file format") consists of two zero bytes, one byte for the type
of the items (0x08: unsigned byte, 0x0c: big-endian 32-bit integer), one for the number of dimensions, each dimension as
a big-endian 32-bit integer, and then the items, the last dimension changing fastest.
"""

import math
import os
import stat
import struct
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.errors import DatasetError

UNSIGNED_BYTE, INT = 0x08, 0x0C
ITEMS: dict[int, tuple[np.dtype[Any], str]] = {
    UNSIGNED_BYTE: (np.dtype(np.uint8), "unsigned bytes"),
    INT: (np.dtype(">i4"), "32-bit integers"),
}

StrPath = str | os.PathLike[str]


def file_size(shape: tuple[int, ...], item_type: int = UNSIGNED_BYTE) -> int:
    """Return the size in bytes of an IDX file with items of this type and these dimensions.

    >>> file_size((60_000, 28, 28))
    47040016
    """
    return _header_size(shape) + math.prod(shape) * ITEMS[item_type][0].itemsize


def parse_header(file: BufferedIOBase, path: StrPath, item_type: int = UNSIGNED_BYTE) -> tuple[int, ...]:
    """Return the dimensions at the start of an open, possibly compressed file; messages name it `path`."""
    magic = file.read(4)
    if not magic:
        raise DatasetError(f"{path}: the file is empty; copy or unpack it again")
    if magic[:2] == b"\x1f\x8b":
        raise DatasetError(f"{path}: the file is gzip, not IDX; unpack it, or add .gz to its name")
    if magic.lstrip().startswith(b"<"):
        raise DatasetError(f"{path}: the file is a web page (HTML), not IDX; download it again")
    if magic[:2] != bytes(2)[: len(magic)]:
        raise DatasetError(f"{path}: not IDX: begins with 0x{magic[:2].hex()} at byte 0 instead of two zeros")
    if len(magic) == 4 and magic[2] != item_type:
        wanted = f"0x{item_type:02x}; store {ITEMS[item_type][1]}"
        raise DatasetError(f"{path}: item type 0x{magic[2]:02x} at byte 2 is not {wanted}")
    num_dimensions = magic[3] if len(magic) == 4 else 1
    sizes = file.read(4 * num_dimensions)
    if (end := len(magic) + len(sizes)) < 4 + 4 * num_dimensions:
        raise DatasetError(f"{path}: ends at byte {end}, inside the header; copy or unpack it again")
    shape = struct.unpack(f">{num_dimensions}I", sizes)
    if 0 in shape:
        axis = shape.index(0)
        raise DatasetError(f"{path}: dimension {axis} at byte {4 + 4 * axis} is 0: the file is empty")
    return shape


def read_images(path: StrPath) -> NDArray[np.uint8]:
    """Return the images as uint8 (N, H, W), mapped from the file; writing to the array does not change the file."""
    return _map_items(path, ("images", "height", "width"), UNSIGNED_BYTE)


def read_labels(
    path: StrPath, num_classes: int = 10, *, first_label: int = 0, labels_type: int = UNSIGNED_BYTE
) -> NDArray[np.int64]:
    """Return the labels as int64 (N,), counted from 0: each in [0, num_classes). `first_label` is the file's lowest.

    The file holds N unsigned bytes or, with `INT` as its type, N rows of integers, of which the first is the label.
    """
    dimensions = ("labels",) if labels_type == UNSIGNED_BYTE else ("labels", "columns")
    items = _map_items(path, dimensions, labels_type)
    labels = items.reshape(len(items), -1)[:, 0].astype(np.int64)
    outside = (labels < first_label) | (labels >= first_label + num_classes)
    if outside.any():
        item = int(np.argmax(outside))
        byte = _header_size(items.shape) + item * items[0].nbytes
        allowed = f"{first_label}..{first_label + num_classes - 1}"
        raise DatasetError(f"{path}: label {labels[item]} at byte {byte} (item {item}) is outside {allowed}")
    return labels - first_label


def read_split(
    images_path: StrPath,
    labels_path: StrPath,
    num_classes: int = 10,
    *,
    first_label: int = 0,
    labels_type: int = UNSIGNED_BYTE,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (N, H, W) and labels (N,) that belong together, N being at least 1."""
    images = read_images(images_path)
    labels = read_labels(labels_path, num_classes, first_label=first_label, labels_type=labels_type)
    if len(images) != len(labels):
        counts = f"{len(labels)} labels at byte 4, but {images_path} has {len(images)} images"
        raise DatasetError(f"{labels_path}: {counts}; the two files do not belong together")
    return images, labels


def write(path: StrPath, array: NDArray[np.uint8]) -> None:
    """Write a uint8 array of one dimension or more, none of them 0, as an IDX file."""
    if array.dtype != np.uint8 or array.ndim < 1 or array.size == 0:
        raise ValueError(f"array must be uint8, with dimensions, none of them 0, got {array.dtype} {array.shape}")
    header = struct.pack(f">4B{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    Path(path).write_bytes(header + array.tobytes())


def _header_size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape)


def _map_items(path: StrPath, dimensions: tuple[str, ...], item_type: int) -> NDArray[Any]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening, because opening a FIFO waits for a writer
            raise DatasetError(f"{path}: not a regular file")
        with open(path, "rb") as file:
            shape = parse_header(file, path, item_type)
            if len(shape) != len(dimensions):
                wanted = f"{len(dimensions)} ({', '.join(dimensions)})"
                raise DatasetError(f"{path}: {len(shape)} dimensions at byte 3 instead of {wanted}")
            expected, found = file_size(shape, item_type), os.fstat(file.fileno()).st_size
            if found != expected:
                fault = "too short" if found < expected else "followed by other bytes"
                sizes = f"{' x '.join(map(str, shape))} items need {expected} bytes, the file has {found}"
                raise DatasetError(f"{path}: {fault}: {sizes}; copy or unpack it again")
            # Copy-on-write, so that the array counts as writable: torch warns about read-only memory.
            return np.memmap(file, ITEMS[item_type][0], mode="c", offset=_header_size(shape), shape=shape)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; MNISTDataModule.prepare_data() puts the files in place") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
