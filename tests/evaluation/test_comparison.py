from math import isclose

import pytest

from mnist_lightning.evaluation.mcnemar import Comparison, compare


@pytest.mark.parametrize(
    ("b", "c", "p", "digits"),
    [
        # Armitage and Berry 1994, Statistical Methods in Medical Research, p. 127, two media for cultures; the exact
        # p-value is StatsDirect's, in its page on matched pairs: 0.0129.
        (12, 2, 0.0129, 4),
        (2, 12, 0.0129, 4),
        (0, 0, 1.0, 9),
        (4, 4, 1.0, 9),
        (0, 10, 2 / 2**10, 12),
    ],
)
def test_the_p_value_equals_the_published_one(b: int, c: int, p: float, digits: int) -> None:
    assert round(Comparison(100, (50, 50), b, c).p_value, digits) == round(p, digits)


def test_the_p_value_is_computed_for_thousands_of_different_predictions() -> None:
    # The normal approximation with continuity correction, z = 9.99, has a p-value of 1.7e-23 there.
    assert isclose(Comparison(10_000, (4500, 5500), 4500, 5500).p_value, 1.7e-23, rel_tol=0.2)


def test_samples_are_matched_by_index_whatever_their_order() -> None:
    first = {(0, 1): True, (1, 2): False, (2, 0): True, (3, 0): False}
    second = {(3, 0): False, (2, 0): False, (0, 1): False, (1, 2): True}
    assert compare(first, second) == Comparison(total=4, correct=(2, 1), only_first=2, only_second=1)


@pytest.mark.parametrize("other", [(0, 2), (5, 1)])
def test_other_samples_or_other_labels_are_not_compared(other: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="same samples"):
        compare({(0, 1): True}, {other: True})
