"""Find the images of a folder that holds a folder for each class, inside folders for each split or not. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import listed, printable
from mnist_lightning.data.image_schema import MOST_CLASSES
from mnist_lightning.errors import DatasetError
from mnist_lightning.images.reader import SUFFIXES, find_image_files

SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
UNSPLIT = "unsplit"  # the key of all images of a folder without split folders

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ClassFolders:
    """The images of a folder."""

    root: Path
    class_names: tuple[str, ...]  # sorted
    files: tuple[str, ...]  # the path of each image, relative to the root
    labels: Indices  # int64 (N,), the class of each image
    splits: Mapping[str, Indices]  # the images in each split folder, `train`, `val` or `test`, or all as `unsplit`
    strays: tuple[str, ...] = ()  # images outside the class folders, which are not used

    @property
    def name(self) -> str:
        """The folder's path as a message shows it."""
        return printable(str(self.root))


def read_class_folders(root: Path) -> ClassFolders:
    """Find the images `root/class/image` or `root/split/class/image`, also in folders below those of the classes.

    The folder holds splits if all folders in it are named train (or training), val (valid, validation) or test. Hidden
    files and folders are skipped, and so is what macOS adds to an archive.
    """
    folders, strays = _list_folder(root)
    names = [SPLIT_FOLDERS.get(folder.name.lower(), "") for folder in folders]
    by_split: dict[str, list[Path]] = {UNSPLIT: folders}
    if folders and all(names):
        if len(set(names)) < len(names):
            found = ", ".join(printable(folder.name) for folder in folders)
            raise DatasetError(f"{printable(str(root))} has two folders for the same split: {found}; keep one")
        by_split = {}
        for name, folder in sorted(zip(names, folders, strict=True)):
            by_split[name], more = _list_folder(folder)
            strays += more
    class_names = tuple(sorted({folder.name for classes in by_split.values() for folder in classes}))
    if not 2 <= len(class_names) <= MOST_CLASSES:
        wanted = f"a folder of images for each of 2 to {MOST_CLASSES} classes"
        raise DatasetError(f"{printable(str(root))} must hold {wanted}; found {listed(class_names) or 'none'}")
    if odd := next((class_name for class_name in class_names if not is_text(class_name)), None):
        raise DatasetError(f"{printable(str(root / odd))}: the folder's name is not text; rename it")
    files: list[str] = []
    labels: list[int] = []
    splits: dict[str, Indices] = {}
    for split, classes in by_split.items():
        start = len(files)
        for folder in classes:
            images, faults = find_image_files([str(folder)])
            if faults:
                raise DatasetError(str(faults[0]))
            files += [str(image.relative_to(root)) for image in images]
            labels += [class_names.index(folder.name)] * len(images)
        splits[split] = np.arange(start, len(files))
    return ClassFolders(root, class_names, tuple(files), np.array(labels, np.int64), splits, tuple(strays))


def is_text(name: str) -> bool:
    """Return whether a config or a report can hold a file's name, which may be bytes that are not valid UTF-8."""
    return "\0" not in name and all(not "\ud800" <= character <= "\udfff" for character in name)


def _list_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the folders in a folder, sorted by name, and the images that lie beside them."""
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise DatasetError(f"{printable(str(folder))} cannot be read: {error.strerror}") from error
    images = [str(path) for path in found if path.name.lower().endswith(SUFFIXES) and path.is_file()]
    return [path for path in found if path.is_dir()], images
