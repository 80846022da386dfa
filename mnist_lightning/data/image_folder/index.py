"""Which pictures a folder holds: a folder for each class, and around these one for each part or not. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import printable
from mnist_lightning.data.image_schema import MOST_CLASSES
from mnist_lightning.errors import DatasetError
from mnist_lightning.images.reader import SUFFIXES, find_image_files

PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
WHOLE = "whole"  # the part of a folder that has no folders of parts

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassFolders:
    """The pictures of a folder.

    Args:
        root: The folder.
        class_names: The names of the classes, in the order of their characters.
        files: Each picture, relative to the root.
        labels: int64 (N,), the class of each.
        parts: The places of the pictures of each part, `train`, `val` and `test` or some of them, or of `whole`.
        strays: Pictures that lie in no class's folder; they count for nothing.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: Indices
    parts: Mapping[str, Indices]
    strays: tuple[str, ...] = ()


def read_class_folders(root: Path) -> ClassFolders:
    """Look through a folder: `root/class/picture` or `root/part/class/picture`, in folders of any depth below these.

    It holds parts where all its folders are called train (or training), val (valid, validation) and test, of which one
    is train, or where there is no other than test or val. Hidden files and folders are left out, and what a Mac adds
    to an archive.

    Raises:
        DatasetError: If it is missing or cannot be read, has fewer than two classes or too many, a class of it has no
            picture, or is called what is no text; or two of its folders are the same part.
    """
    folders, strays = _look_into(root)
    names = [PARTS.get(folder.name.lower(), "") for folder in folders]
    by_part: dict[str, list[Path]] = {WHOLE: folders}
    if folders and all(names):
        if len(set(names)) < len(names):
            raise DatasetError(f"{printable(str(root))} has two folders for a part: {_listed(folders)}; keep one")
        by_part = {}
        for name, folder in sorted(zip(names, folders, strict=True)):
            by_part[name], more = _look_into(folder)
            strays += more
    class_names = tuple(sorted({folder.name for classes in by_part.values() for folder in classes}))
    _check_classes(root, class_names)
    files: list[str] = []
    labels: list[int] = []
    parts: dict[str, Indices] = {}
    for part, classes in by_part.items():
        start = len(files)
        for folder in classes:
            pictures, faults = find_image_files([str(folder)])
            if faults:
                raise DatasetError(str(faults[0]))
            files += [str(picture.relative_to(root)) for picture in pictures]
            labels += [class_names.index(folder.name)] * len(pictures)
        parts[part] = np.arange(start, len(files))
    return ClassFolders(root, class_names, tuple(files), np.array(labels, np.int64), parts, tuple(strays))


def is_text(name: str) -> bool:
    """Return whether a file's name can be written into a config or a report, which bytes that are no UTF-8 cannot."""
    return "\0" not in name and all(not "\ud800" <= character <= "\udfff" for character in name)


def _look_into(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the folders in a folder, in the order of their names, and the pictures that lie beside them."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except FileNotFoundError:
        raise DatasetError(f"{printable(str(folder))}: no such folder") from None
    except OSError as error:
        raise DatasetError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error
    return (
        [path for path in found if path.is_dir()],
        [str(path) for path in found if path.name.lower().endswith(SUFFIXES) and path.is_file()],
    )


def _check_classes(root: Path, class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        held = f"only {printable(class_names[0])}" if class_names else "none"
        raise DatasetError(
            f"{printable(str(root))} must hold a folder of pictures for each of two classes or more, and has {held}"
        )
    if len(class_names) > MOST_CLASSES:
        raise DatasetError(f"{printable(str(root))} has {len(class_names):,} classes, more than {MOST_CLASSES:,}")
    for name in class_names:
        if not is_text(name):
            raise DatasetError(f"{printable(str(root / name))}: the folder's name is no text; rename it")


def _listed(folders: list[Path]) -> str:
    return ", ".join(printable(folder.name) for folder in folders)
