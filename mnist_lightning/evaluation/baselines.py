"""What a network for a table has to beat: the most frequent class, and logistic regression."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.data.table.datamodule import Rows

MOST_ROWS = 100_000  # that logistic regression is fitted to; more take minutes and change little
ITERATIONS = 1000


@dataclass(frozen=True)
class Baseline:
    """How a simple classifier answers the test rows.

    Args:
        name: What it is, in words.
        correct: Rows answered right.
        total: Rows asked.
        training_rows: Rows it was fitted to.
    """

    name: str
    correct: int
    total: int
    training_rows: int

    @property
    def accuracy(self) -> float:
        """The accuracy, a fraction in [0, 1]."""
        return self.correct / self.total


def majority(train: Rows, test: Rows) -> Baseline:
    """Return how the most frequent label of the training rows answers, of equals the first."""
    _, labels = _arrays(train)
    answer = np.bincount(labels).argmax()
    return Baseline("the most frequent class", int((_arrays(test)[1] == answer).sum()), len(test.indices), len(labels))


def logistic_regression(train: Rows, test: Rows) -> Baseline:
    """Return how scikit-learn's logistic regression answers, with its own settings, on the network's inputs.

    It is fitted to the training rows, or to `MOST_ROWS` of them drawn by a fixed seed.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    from sklearn.linear_model import LogisticRegression

    rows, labels = _arrays(train)
    if len(labels) > MOST_ROWS:
        chosen = np.random.default_rng(0).choice(len(labels), MOST_ROWS, replace=False)
        rows, labels = rows[chosen], labels[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged yet does not make it less of a baseline
        model = LogisticRegression(max_iter=ITERATIONS).fit(rows, labels)
    test_rows, test_labels = _arrays(test)
    correct = int((model.predict(test_rows) == test_labels).sum())
    return Baseline("logistic regression", correct, len(test_labels), len(labels))


def _arrays(rows: Rows) -> tuple[NDArray[np.float32], NDArray[Any]]:
    return rows.inputs[rows.indices].cpu().numpy(), rows.labels[rows.indices].cpu().numpy()
