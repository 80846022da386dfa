"""Two tested runs compared image by image."""

from math import isclose
from pathlib import Path

import pytest

from mnist_lightning.cli.compare import mcnemar
from mnist_lightning.evaluation.predictions_file import ANSWERS, as_csv
from tests.conftest import Command

LABELS = [0, 1, 2, 3] * 5


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
def test_the_p_value_is_the_published_one(b: int, c: int, p: float, digits: int) -> None:
    assert round(mcnemar(b, c), digits) == round(p, digits)


def test_thousands_of_different_answers_are_no_trouble() -> None:
    # The normal approximation with continuity correction, z = 9.99, has a p-value of 1.7e-23 there.
    assert isclose(mcnemar(4500, 5500), 1.7e-23, rel_tol=0.2)


def write(run: int, answers: list[int], labels: list[int] = LABELS) -> None:
    folder = Path("lightning_logs", f"version_{run}")
    folder.mkdir(parents=True)
    (folder / ANSWERS).write_text(as_csv(zip(range(len(labels)), labels, answers, strict=True)))


def test_two_runs_are_compared_by_the_images_that_only_one_answers_right(command: Command) -> None:
    write(3, [9, *LABELS[1:]])  # one wrong
    write(5, [LABELS[0], *[9] * 7, *LABELS[8:]])  # seven others wrong
    outcome = command("compare", "version_3", "version_5")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "version_3: 19/20 = 95.00 %",
        "version_5: 13/20 = 65.00 %",
        "right only in version_3: 7; right only in version_5: 1",
        "McNemar's exact test, two-sided: p = 0.0703",
    ]


def test_runs_that_cannot_be_compared_cost_a_line(command: Command) -> None:
    write(0, LABELS)
    write(1, LABELS[:-1], LABELS[:-1])
    write(2, LABELS)
    Path("lightning_logs/version_2", ANSWERS).write_text("no,table\n1,2\n")
    for other, words in (
        ("version_1", "version_0 and version_1 were not tested on the same images"),
        ("version_2", "answers.csv is no table of answers; `test` writes it anew"),
        ("version_7", "answers.csv is not there; `test` writes it"),
        ("last", "last is no run"),
    ):
        outcome = command("compare", "version_0", other)
        assert outcome.code == 2
        assert words in outcome.err
