"""Split samples at random, stratified by class, and record what a network was trained on. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 0.15  # fraction of the samples for validation, and again for testing


@dataclass(frozen=True)
class TrainingSource:
    """What a network was trained on, and which splits were held out from it."""

    path: str  # the table, or the folder of images
    sha256: str  # of what was split: the bytes of the table, or the names and pixels of the images
    split_seed: int
    cut: tuple[str, ...]  # the splits that were held out: `val`, `test`, both or neither

    @classmethod
    def from_plain(cls, values: Any) -> "TrainingSource":
        """Return the training source that a checkpoint holds as plain values (`dataclasses.asdict`)."""
        source = cls(**{**values, "cut": tuple(values["cut"])})
        if type(source.split_seed) is not int:
            raise TypeError("the seed is not an integer")
        if not all(isinstance(text, str) for text in (source.path, source.sha256, *source.cut)):
            raise TypeError("a text is not a string")
        return source


def stratified_split(labels: NDArray[np.int64], fractions: Sequence[float], seed: int) -> list[NDArray[np.int64]]:
    """Return the indices of the remaining samples, then those of each held-out split, all in ascending order.

    A split holds its fraction of every class to within one sample, and its fraction of all samples: counts are rounded
    down class by class, and the missing samples are taken from the classes that lost most (the method of largest
    remainders). Each split holds at least one sample of each class. Labels, int64 (N,), count from 0, each of them at
    least `len(fractions) + 1` times; fractions are in (0, 1), together below 1.

    >>> [split.tolist() for split in stratified_split(np.array([0, 0, 0, 0, 1, 1, 1, 1]), [0.25], seed=1)]
    [[1, 2, 3, 4, 6, 7], [0, 5]]
    """
    sizes = np.bincount(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]  # one class after another, each shuffled
    rank = np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes)  # of a sample within its class
    split_of = np.zeros(len(labels), np.int8)
    start = np.zeros_like(sizes)
    for number, fraction in enumerate(fractions, start=1):
        end = start + _counts_by_class(sizes, fraction)
        split_of[by_class[(rank >= np.repeat(start, sizes)) & (rank < np.repeat(end, sizes))]] = number
        start = end
    return [np.flatnonzero(split_of == number) for number in range(len(fractions) + 1)]


def _counts_by_class(sizes: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    exact = sizes * fraction
    counts = np.floor(exact).astype(np.int64)
    missing = round(fraction * int(sizes.sum())) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[: max(missing, 0)]] += 1
    return np.asarray(np.maximum(counts, 1), np.int64)
