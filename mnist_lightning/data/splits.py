"""Cut rows into parts that hold each class in the same proportion, and remember what was cut. NumPy only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.15  # for validation, and again for testing, where nobody says otherwise


@dataclass(frozen=True)
class Origin:
    """What a network was trained on, and what was kept from it for its validation and its test.

    Args:
        path: The table, or the folder of pictures.
        sha256: Digest of what was cut: of the table's bytes, or of the pictures and their names.
        split_seed: Seed of the split.
        cut: The parts that were cut from it, `val` and `test` or less.
    """

    path: str
    sha256: str
    split_seed: int
    cut: tuple[str, ...]


def origin_from_plain(values: Any) -> Origin:
    """Return the origin that a checkpoint holds as plain values.

    Raises:
        KeyError, TypeError, ValueError: If they are none.
    """
    if not isinstance(values, Mapping):
        raise TypeError("not a mapping")
    path, sha256, split_seed, cut = (values[name] for name in ("path", "sha256", "split_seed", "cut"))
    if type(split_seed) is not int or not all(isinstance(text, str) for text in (path, sha256, *cut)):
        raise TypeError("not a whole number, or not a text")
    return Origin(path, sha256, split_seed, tuple(cut))


def stratified_split(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> list[NDArray[np.int64]]:
    """Return the rows that are left, then those of each part, all in ascending order.

    A part takes its share of every class, to within one row, and its share of all rows: rounded down class by class,
    with what is missing then taken from the classes that lost most by it (the method of largest remainders). At least
    one row of each class goes into each part.

    Args:
        labels: int (N,), each class from 0 up at least `len(shares) + 1` times.
        shares: The share of each part, in (0, 1), together below 1.
        seed: Seed of which rows go where, at least 0.

    >>> [part.tolist() for part in stratified_split(np.array([0, 0, 0, 0, 1, 1, 1, 1]), [0.25], seed=1)]
    [[1, 2, 3, 4, 6, 7], [0, 5]]
    """
    sizes = np.bincount(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # one class after another, each at random
    rank = np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes)  # of a row within its class
    part = np.zeros(len(labels), np.int8)
    start = np.zeros_like(sizes)
    for number, share in enumerate(shares, start=1):
        end = start + _apportion(sizes, share)
        part[by_class[(rank >= np.repeat(start, sizes)) & (rank < np.repeat(end, sizes))]] = number
        start = end
    return [np.flatnonzero(part == number) for number in range(len(shares) + 1)]


def _apportion(sizes: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    exact = sizes * share
    counts = np.floor(exact).astype(np.int64)
    missing = round(share * int(sizes.sum())) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[: max(missing, 0)]] += 1
    at_least_one: NDArray[np.int64] = np.maximum(counts, 1)
    return at_least_one
