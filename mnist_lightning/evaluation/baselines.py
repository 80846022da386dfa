"""Baselines for a network on a table: the most frequent class and logistic regression."""

import warnings
from dataclasses import dataclass

import numpy as np

from mnist_lightning.data.table.datamodule import Rows

MAX_ROWS = 100_000  # that logistic regression is fitted to; more take minutes and change little
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Baseline:
    """The accuracy of a simple classifier on the test rows."""

    name: str
    correct: int  # predictions
    total: int  # test rows
    training_rows: int  # that it was fitted to

    @property
    def accuracy(self) -> float:
        """The accuracy, a fraction in [0, 1]."""
        return self.correct / self.total


def majority(train: Rows, test: Rows) -> Baseline:
    """Score the most frequent class of the training rows; ties take the lowest label."""
    labels = train.labels[train.indices]
    correct = test.labels[test.indices] == labels.bincount().argmax()
    return Baseline("the most frequent class", int(correct.sum()), len(correct), len(labels))


def logistic_regression(train: Rows, test: Rows) -> Baseline:
    """Score scikit-learn's logistic regression, with its default settings, on the network's inputs.

    It is fitted to the training rows, or to `MAX_ROWS` of them drawn with a fixed seed. Without scikit-learn this is an
    ImportError.
    """
    from sklearn.linear_model import LogisticRegression

    inputs, labels = (values[train.indices].cpu().numpy() for values in (train.inputs, train.labels))
    test_inputs, test_labels = (values[test.indices].cpu().numpy() for values in (test.inputs, test.labels))
    if len(labels) > MAX_ROWS:
        chosen = np.random.default_rng(0).choice(len(labels), MAX_ROWS, replace=False)
        inputs, labels = inputs[chosen], labels[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged yet is a baseline all the same
        model = LogisticRegression(max_iter=MAX_ITERATIONS).fit(inputs, labels)
    correct = int((model.predict(test_inputs) == test_labels).sum())
    return Baseline("logistic regression", correct, len(test_labels), len(labels))
