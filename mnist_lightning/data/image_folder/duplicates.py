"""Split the images of a folder so that equal pixels never lie in two splits. No torch."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import UNSPLIT, ClassFolders, Indices
from mnist_lightning.data.splits import HELD_OUT, stratified_split
from mnist_lightning.errors import DatasetError

Splits = dict[str, Indices]
Pairs = list[tuple[str, str]]


def split_images(folders: ClassFolders, digests: Sequence[str], seed: int) -> tuple[Splits, Pairs]:
    """Split the images of a folder: keep the splits that it has, and hold out the missing ones from the rest.

    If pixels occur in several split folders, test images are kept first, then validation images. What is held out takes
    all images of the same pixels together, and its fraction of the different images of every class.

    Returns:
        int64 indices of the images of `train`, `val` and `test`, ascending; and the images in no split, each with the
        image of the same pixels that is scored.
    """
    source = next((split for split in ("train", UNSPLIT) if split in folders.splits), None)
    if source is None:
        raise DatasetError(f"{folders.name} holds {', '.join(folders.splits)}, but no folder train")
    splits, duplicates = given_splits(folders, digests)
    splits |= _hold_out(folders, digests, splits.pop(source), missing_splits(folders), seed)
    if empty := next((split for split, indices in splits.items() if not len(indices)), None):
        raise DatasetError(f"{folders.name} has no image for {empty}")
    _check_classes(folders, splits["train"], 1, "to train on")
    return splits, duplicates


def given_splits(folders: ClassFolders, digests: Sequence[str]) -> tuple[Splits, Pairs]:
    """Return the splits that a folder has, each image in the first split that holds its pixels, and the duplicates.

    Test images come first, then validation images.
    """
    duplicates: Pairs = []
    kept: dict[str, int] = {}  # the first image with each digest
    splits: Splits = {}
    for split in ("test", "val", "train", UNSPLIT):
        if split in folders.splits:
            indices = folders.splits[split].tolist()
            duplicates += [(folders.files[i], folders.files[kept[digests[i]]]) for i in indices if digests[i] in kept]
            splits[split] = np.array([i for i in indices if digests[i] not in kept], np.int64)
            kept = {digests[i]: i for i in reversed(splits[split].tolist())} | kept
    return splits, duplicates


def missing_splits(folders: ClassFolders) -> tuple[str, ...]:
    """Return the splits that a folder does not have."""
    return tuple(split for split in ("val", "test") if split not in folders.splits)


def training_digest(folders: ClassFolders, digests: Sequence[str]) -> str:
    """Return the SHA-256 of the names and pixels of the images that are trained on or held out from these."""
    sha256 = hashlib.sha256()
    for split in ("train", UNSPLIT):
        for index in folders.splits.get(split, ()):
            sha256.update(f"{folders.files[index]}\0{digests[index]}\n".encode("utf-8", "surrogateescape"))
    return sha256.hexdigest()


def in_two_classes(folders: ClassFolders, digests: Sequence[str]) -> Pairs:
    """Return the images whose pixels occur in another class too, each with the first such image."""
    _, first, content = np.unique(digests, return_index=True, return_inverse=True)
    differ = np.flatnonzero(folders.labels != folders.labels[first[content]])
    return [(folders.files[index], folders.files[first[content[index]]]) for index in differ]


def _hold_out(
    folders: ClassFolders, digests: Sequence[str], indices: Indices, missing: Sequence[str], seed: int
) -> Splits:
    if not missing:
        return {"train": indices}
    content = np.unique(digests, return_inverse=True)[1][indices]  # equal for images of the same pixels
    first = np.sort(np.unique(content, return_index=True)[1])  # places in `indices`
    _check_classes(folders, indices[first], len(missing) + 1, "to split")
    pieces = stratified_split(folders.labels[indices[first]], [HELD_OUT] * len(missing), seed)
    names = ("train", *missing)
    return {name: indices[np.isin(content, content[first[piece]])] for name, piece in zip(names, pieces, strict=True)}


def _check_classes(folders: ClassFolders, indices: Indices, least: int, purpose: str) -> None:
    counts = np.bincount(folders.labels[indices], minlength=len(folders.class_names))
    scarce = int(counts.argmin())
    if counts[scarce] < least:
        found = f"{printable(folders.class_names[scarce])} has {counts[scarce]} different images {purpose}"
        raise DatasetError(f"{folders.name}: the class {found}; at least {least} needed")
