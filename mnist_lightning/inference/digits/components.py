"""Connected components of a mask: which pixels hang together. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Components:
    """The connected components of a mask, numbered from 1.

    Args:
        numbers: int32 (H, W), the component of each pixel, 0 outside the mask.
        areas: int64 (N,), the pixels of each component.
        boxes: int64 (N, 4), left, top, right, bottom of each; right and bottom are the first pixel outside.
    """

    numbers: NDArray[np.int32]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]


def connected_components(mask: NDArray[np.bool_]) -> Components:
    """Return the components of a mask (H, W), pixels being neighbours across corners too.

    >>> components = connected_components(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool))
    >>> components.numbers.tolist(), components.areas.tolist(), components.boxes.tolist()
    ([[1, 0, 0, 2], [0, 1, 0, 2]], [2, 2], [[0, 0, 2, 2], [3, 0, 4, 2]])
    """
    # A run is an unbroken row of pixels of the mask, from `starts` to before `ends`.
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    roots = _joined(rows, starts, ends, height=len(mask))
    _, component = np.unique(roots, return_inverse=True)
    count = int(component.max(initial=-1)) + 1
    numbers = np.zeros(mask.shape, np.int32)
    numbers[mask] = np.repeat(component + 1, ends - starts)
    boxes = np.tile(np.array([mask.shape[1], mask.shape[0], 0, 0]), (count, 1))
    for edge, extreme, values in (
        (0, np.minimum, starts),
        (1, np.minimum, rows),
        (2, np.maximum, ends),
        (3, np.maximum, rows + 1),
    ):
        extreme.at(boxes[:, edge], component, values)
    areas = np.bincount(component, ends - starts, count).astype(np.int64)
    return Components(numbers, areas, boxes)


def _joined(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], height: int
) -> NDArray[np.int64]:
    """Return for each run the first run of its component (union-find over runs that touch in adjacent rows)."""
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    first_of_row = np.searchsorted(rows, np.arange(height + 1)).tolist()
    start, end = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, run = first_of_row[row - 1], first_of_row[row]
        while above < first_of_row[row] and run < first_of_row[row + 1]:
            if start[run] <= end[above] and start[above] <= end[run]:
                first, second = sorted((root(above), root(run)))
                parents[second] = first
            if end[above] < end[run]:
                above += 1
            else:
                run += 1
    return np.array([root(run) for run in range(len(rows))], dtype=np.int64)
