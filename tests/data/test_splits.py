import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_lightning.data.splits import stratified_split

FRACTIONS = [0.15, 0.15]


@given(counts=st.lists(st.integers(3, 60), min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(derandomize=True, deadline=None, database=None)
def test_every_row_is_in_one_split_and_each_split_is_stratified(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    train, *splits = stratified_split(labels, FRACTIONS, seed)
    assert sorted(np.concatenate([train, *splits]).tolist()) == list(range(len(labels)))
    for split in splits:
        assert (np.diff(split) > 0).all()
        of_class = np.bincount(labels[split], minlength=len(counts))
        assert (of_class >= 1).all()
        assert (np.abs(of_class - 0.15 * np.array(counts)) < 1).all()
    assert (np.bincount(labels[train], minlength=len(counts)) >= 1).all()


def test_a_split_has_its_fraction_of_all_rows() -> None:
    labels = np.repeat(np.arange(7), 10)  # 10.5 rows, of which no class has more than 2
    assert [len(split) for split in stratified_split(labels, FRACTIONS, 0)] == [50, 10, 10]


def test_the_split_is_a_function_of_its_seed() -> None:
    labels = np.arange(100) % 3
    first, again, other = (stratified_split(labels, FRACTIONS, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("fractions", [[], [0.15]])
def test_fewer_held_out_splits_leave_more_training_rows(fractions: list[float]) -> None:
    splits = stratified_split(np.arange(100) % 2, fractions, 0)
    assert [len(split) for split in splits] == ([100] if not fractions else [85, 15])
