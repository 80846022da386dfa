"""Which pictures of a folder are trained, validated and tested on; no picture is in two parts, nor a copy. No torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import WHOLE, ClassFolders, Indices
from mnist_lightning.data.splits import SHARE, stratified_split
from mnist_lightning.errors import DatasetError


@dataclass(frozen=True)
class PictureSplit:
    """The pictures of each part.

    Args:
        parts: The places of those of `train`, `val` and `test`, int64, ascending.
        copies: Pictures that are in no part, each with that of the same pixels in a part that is scored.
    """

    parts: Mapping[str, Indices]
    copies: Sequence[tuple[str, str]]


def split_pictures(folders: ClassFolders, digests: Sequence[str], seed: int) -> PictureSplit:
    """Split the pictures of a folder: take the parts that it has, and cut the others from the rest.

    Of pictures with the same pixels in two parts that the folder has, those to test on stay before those to validate
    on, and these before those to train on. What is cut takes all pictures of the same pixels, and of the different
    ones its share of every class.

    Args:
        folders: The pictures.
        digests: A digest of the pixels of each.
        seed: Seed of what is cut, at least 0.

    Raises:
        DatasetError: If there is nothing to train on, a part has no picture, or a class not enough.
    """
    given, name = folders.parts, printable(str(folders.root))
    source = next((part for part in ("train", WHOLE) if part in given), None)
    if source is None:
        raise DatasetError(f"{name} holds {', '.join(given)}, but no folder train")
    parts, copies = given_parts(folders, digests)
    parts |= _cut(folders, digests, parts.pop(source), parts_to_cut(folders), seed)
    for part, places in parts.items():
        if not len(places):
            raise DatasetError(f"{name} has no picture for {part}")
    _check_classes(folders, parts["train"], 1, "to train on")
    return PictureSplit(parts, copies)


def given_parts(folders: ClassFolders, digests: Sequence[str]) -> tuple[dict[str, Indices], list[tuple[str, str]]]:
    """Return the parts that a folder has, without pictures whose pixels are in one that comes first, and these copies.

    Parts to test on come first, those to validate on next.
    """
    copies: list[tuple[str, str]] = []
    kept: dict[str, int] = {}  # the first picture of each digest
    parts: dict[str, Indices] = {}
    for part in ("test", "val", "train", WHOLE):
        if part in folders.parts:
            places = folders.parts[part].tolist()
            copies += [(folders.files[i], folders.files[kept[digests[i]]]) for i in places if digests[i] in kept]
            parts[part] = np.array([i for i in places if digests[i] not in kept], np.int64)
            kept = {digests[i]: i for i in reversed(parts[part].tolist())} | kept
    return parts, copies


def parts_to_cut(folders: ClassFolders) -> tuple[str, ...]:
    """Return the parts that a folder does not have."""
    return tuple(part for part in ("val", "test") if part not in folders.parts)


def identity(folders: ClassFolders, digests: Sequence[str]) -> str:
    """Return the SHA-256 of the names and pixels of what is trained on or cut, whatever else the folder holds."""
    sha256 = hashlib.sha256()
    for part in ("train", WHOLE):
        for place in folders.parts.get(part, ()):
            sha256.update(f"{folders.files[place]}\0{digests[place]}\n".encode("utf-8", "surrogateescape"))
    return sha256.hexdigest()


def in_two_classes(folders: ClassFolders, digests: Sequence[str]) -> list[tuple[str, str]]:
    """Return pictures whose pixels are also those of one in another class, each with the first such."""
    first: dict[str, int] = {}
    return [
        (folders.files[place], folders.files[other])
        for place, digest in enumerate(digests)
        if folders.labels[other := first.setdefault(digest, place)] != folders.labels[place]
    ]


def _cut(
    folders: ClassFolders, digests: Sequence[str], rest: Indices, cut: Sequence[str], seed: int
) -> dict[str, Indices]:
    if not cut:
        return {"train": rest}
    first = {digests[place]: place for place in reversed(rest.tolist())}  # of each digest, the first picture
    different = np.array(sorted(first.values()), np.int64)
    _check_classes(folders, different, len(cut) + 1, "to split")
    pieces = stratified_split(folders.labels[different], [SHARE] * len(cut), seed)
    names = ("train", *cut)
    part_of = {
        digests[place]: name for name, piece in zip(names, pieces, strict=True) for place in different[piece].tolist()
    }
    homes = np.array([part_of[digests[place]] for place in rest.tolist()])
    return {name: rest[homes == name] for name in names}


def _check_classes(folders: ClassFolders, places: Indices, least: int, use: str) -> None:
    counts = np.bincount(folders.labels[places], minlength=len(folders.class_names))
    scarce = int(counts.argmin())
    if counts[scarce] < least:
        raise DatasetError(
            f"{printable(str(folders.root))}: the class {printable(folders.class_names[scarce])} has {counts[scarce]} "
            f"different pictures {use}; it needs {least}"
        )
