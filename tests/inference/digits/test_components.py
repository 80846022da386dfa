import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from mnist_lightning.inference.digits.components import connected_components


def flooded(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Return the components of a mask as sets of pixels, by walking from neighbour to neighbour."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    components = []
    while left:
        component, front = set(), {min(left)}
        while front:
            component |= front
            left -= front
            front = {
                (row + down, column + across) for row, column in front for down in (-1, 0, 1) for across in (-1, 0, 1)
            } & left
        components.append(component)
    return components


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.booleans()))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_components_are_what_a_walk_over_neighbours_finds(mask: NDArray[np.bool_]) -> None:
    expected = flooded(mask)
    components = connected_components(mask)
    assert len(components.areas) == len(components.boxes) == len(expected)
    assert ((components.numbers > 0) == mask).all()
    for pixels in expected:
        (number,) = {int(components.numbers[pixel]) for pixel in pixels}
        rows, columns = zip(*pixels, strict=True)
        assert components.areas[number - 1] == len(pixels)
        box = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
        assert components.boxes[number - 1].tolist() == box
