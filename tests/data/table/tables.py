"""Small tables for the tests: iris, which scikit-learn carries, and one that needs every rule."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sklearn.datasets import load_iris

IRIS_FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")

# Numbers, a text with gaps, a number with gaps, truth values; the last column is to be learned.
MIXED_HEADER = ("size", "colour", "age", "wild", "kind")
MIXED = [
    (
        1.5 + kind + number / 10,
        ("red", "blue", "")[number % 3],
        "" if number % 5 == 4 else number,
        number % 2 == 0,
        name,
    )
    for kind, name in enumerate(("cat", "dog"))
    for number in range(20)
]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a table with Python's own csv module."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def write_iris(path: Path) -> Path:
    """Write Fisher's irises: 150 flowers, 50 of each of three species, four lengths of each."""
    iris = load_iris()
    rows = [(*values, iris.target_names[label]) for values, label in zip(iris.data, iris.target, strict=True)]
    return write_csv(path, (*IRIS_FEATURES, "species"), rows)


def write_mixed(path: Path) -> Path:
    """Write a table of 40 rows with everything that a column can be."""
    return write_csv(path, MIXED_HEADER, MIXED)
