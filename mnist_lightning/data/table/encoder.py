"""TableSchema: what a trained network has to know of its table, and how rows become its inputs. No torch.

It is fitted to the training rows alone, and every checkpoint holds it as plain values.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import listed
from mnist_lightning.data.splits import TrainingSource
from mnist_lightning.data.table.reader import Numbers, Table, Texts, is_missing, numbers_in
from mnist_lightning.errors import DatasetError

MAX_CATEGORIES = 1000  # of a column; a column with more holds names or identifiers rather than categories
MAX_CLASSES = 1000


@dataclass(frozen=True)
class NumberColumn:
    """A numeric column, encoded as (number - mean) / std."""

    name: str
    mean: float  # of the training rows
    std: float  # of the training rows, 1 if all are equal
    median: float  # of the training rows; replaces missing numbers

    def encode(self, table: Table) -> NDArray[np.float32]:
        """Return the encoded column, float32 (N, 1); a text or a number too large for float32 is a DatasetError."""
        values = table.numbers(self.name, otherwise="is text, but the training rows hold numbers")
        with np.errstate(over="ignore"):
            standardised = (np.where(np.isnan(values), self.median, values) - self.mean) / self.std
            encoded: NDArray[np.float32] = standardised[:, None].astype(np.float32)
        if len(far := np.flatnonzero(~np.isfinite(encoded))):
            raise table.fault(far[0], self.name, f"{values[far[0]]} is too far from the numbers in the training rows")
        return encoded


@dataclass(frozen=True)
class CategoryColumn:
    """A text column, encoded one-hot; a category that no training row has becomes zeros."""

    name: str
    categories: tuple[str, ...]  # the texts of the training rows, sorted; "" stands for missing fields

    def encode(self, table: Table) -> NDArray[np.float32]:
        """Return the encoded column, float32 (N, categories)."""
        values = table.columns[self.name]
        index_of = {text: index for index, text in enumerate(self.categories)}
        if isinstance(values, Texts):
            # The last is the index of a missing field, whose code is -1.
            indices = np.array([index_of.get(text, -1) for text in (*values.values, "")])[values.codes]
        else:  # numbers, which are not among the categories, or missing
            indices = np.where(np.isnan(values), index_of.get("", -1), -1)
        return np.asarray(indices[:, None] == np.arange(len(self.categories)), np.float32)


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table, and the meaning of the network's outputs."""

    target: str  # the column that is predicted
    class_names: tuple[str, ...]  # by label
    columns: tuple[NumberColumn | CategoryColumn, ...]  # that the network takes, in this order
    origin: TrainingSource
    eval_batch_size: ClassVar[int] = 4096  # rows; fixed, so that scores do not depend on an option

    @property
    def features(self) -> list[str]:
        """The names of the columns that the network takes."""
        return [column.name for column in self.columns]

    @property
    def in_features(self) -> int:
        """How many inputs a row becomes."""
        return sum(1 if isinstance(column, NumberColumn) else len(column.categories) for column in self.columns)

    def encode(self, table: Table) -> NDArray[np.float32]:
        """Return the inputs float32 (N, in_features) of a table's rows."""
        return np.concatenate([column.encode(table) for column in self.columns], axis=1)

    def labels(self, table: Table, column: str) -> NDArray[np.int64]:
        """Return the labels int64 (N,) of a table's rows, from a column that was read as text."""
        texts = label_texts(table, column)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        label_of_code = np.array([numbers.get(value, -1) for value in texts.values])
        labels: NDArray[np.int64] = label_of_code[texts.codes]
        if len(unknown := np.flatnonzero(labels < 0)):
            what = f"{texts.at(unknown[0])!r} is not a class of this network: {listed(self.class_names)}"
            raise table.fault(unknown[0], column, what)
        return labels


def fit_schema(table: Table, train: NDArray[np.int64], target: str, origin: TrainingSource) -> TableSchema:
    """Return the schema of a table, computed from its training rows `train`, int64 (M,).

    The table holds the target, read as text, and the columns that the network takes, in order. A column that mixes
    numbers and text, has too many different texts, or is empty is a DatasetError.
    """
    texts = label_texts(table, target)
    classes = {texts.values[code] for code in np.unique(texts.codes[train])}
    columns = tuple(_fit_column(table, train, name) for name in table.columns if name != target)
    return TableSchema(target, tuple(in_order(classes)), columns, origin)


def _fit_column(table: Table, train: NDArray[np.int64], name: str) -> NumberColumn | CategoryColumn:
    values = table.columns[name]
    if is_missing(values)[train].all():
        raise DatasetError(f"{table.path}, column {name} has no value in the training rows; leave it out")
    return _categories(table, train, name, values) if isinstance(values, Texts) else _scale(name, values[train])


def label_texts(table: Table, column: str) -> Texts:
    """Return a column of labels; a missing label is a DatasetError."""
    texts = table.columns[column]
    assert isinstance(texts, Texts)
    if len(missing := np.flatnonzero(is_missing(texts))):
        raise table.fault(missing[0], column, "the label is missing")
    return texts


def in_order(names: set[str]) -> list[str]:
    """Return names sorted, as numbers if all of them are numbers.

    >>> in_order({"10", "9"}), in_order({"10", "9", "b"})
    (['9', '10'], ['10', '9', 'b'])
    """
    alphabetic = sorted(names)
    numbers = numbers_in(alphabetic)
    return alphabetic if np.isnan(numbers).any() else [alphabetic[index] for index in numbers.argsort(kind="stable")]


def schema_from_plain(values: Any) -> TableSchema | None:
    """Return the schema that a checkpoint holds as plain values (`dataclasses.asdict`); None if they are invalid."""
    try:
        columns = tuple(
            CategoryColumn(column["name"], tuple(column["categories"]))
            if "categories" in column
            else NumberColumn(**column)
            for column in values["columns"]
        )
        origin = TrainingSource.from_plain(values["origin"])
        schema = TableSchema(values["target"], tuple(values["class_names"]), columns, origin)
        is_valid = (
            schema.in_features > 0
            and len(schema.class_names) >= 2
            and len(set(schema.features)) == len(schema.features)
            and all(isinstance(name, str) for name in (schema.target, *schema.class_names, *schema.features))
            and all(
                math.isfinite(column.mean + column.std + column.median) and column.std > 0
                for column in columns
                if isinstance(column, NumberColumn)
            )
        )
    except (KeyError, TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor in place of a plain value
        return None
    return schema if is_valid else None


def _scale(name: str, values: Numbers) -> NumberColumn:
    present = values[~np.isnan(values)]
    mean, std = float(present.mean()), float(present.std())
    if not np.ptp(present):  # the mean of equal numbers is off by its rounding
        mean, std = float(present[0]), 1.0
    return NumberColumn(name, mean, std, float(np.median(present)))


def _categories(table: Table, train: NDArray[np.int64], name: str, texts: Texts) -> CategoryColumn:
    is_number, is_text = texts.are_numbers(), ~texts.are_numbers(missing=True)
    if is_number[train].any():
        # The rarer kind is the likelier mistake.
        text_is_rarer = is_number.sum() >= is_text.sum()
        row = np.flatnonzero(is_text if text_is_rarer else is_number)[0]
        what = "is text among numbers" if text_is_rarer else "is a number among texts"
        raise table.fault(row, name, f"{texts.at(row)!r} {what}; fix it, or leave the column out of data.features")
    categories = sorted({texts.values[code] if code >= 0 else "" for code in np.unique(texts.codes[train])})
    if len(categories) > MAX_CATEGORIES:
        found = f"{len(categories):,} different texts, more than {MAX_CATEGORIES:,}"
        raise DatasetError(f"{table.path}, column {name} has {found}; leave it out of data.features")
    return CategoryColumn(name, tuple(categories))
