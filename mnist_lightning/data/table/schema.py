"""What a trained network must know of the table it was trained on, and how rows become its inputs. No torch.

It is fitted to training rows alone, and travels in the checkpoint as plain values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import listed
from mnist_lightning.data.splits import Origin, origin_from_plain
from mnist_lightning.data.table.reader import Numbers, Table, Texts, numbers_in
from mnist_lightning.errors import DatasetError

MAX_CATEGORIES = 1000  # of a column; more are names or numbers of rows rather than categories
MAX_CLASSES = 1000


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, which become (number - mean) / std.

    Args:
        name: Its name.
        mean: Mean of the training rows.
        std: Standard deviation of the training rows, 1 where all are equal.
        median: Their median, which stands where a number is missing.
    """

    name: str
    mean: float
    std: float
    median: float


@dataclass(frozen=True)
class CategoryColumn:
    """A column of texts, which become a 1 at the place of their category and 0 elsewhere.

    Args:
        name: Its name.
        categories: The texts of the training rows, sorted; an empty one, where fields were missing, is one of them. A
            text that is none of them sets no place.
    """

    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class TableSchema:
    """The form of a table's rows, and what the network's outputs mean.

    Args:
        target: The column that was learned.
        class_names: The name of each class, by label.
        columns: What the network takes, in this order.
        origin: The rows it was trained on.
    """

    target: str
    class_names: tuple[str, ...]
    columns: tuple[NumberColumn | CategoryColumn, ...]
    origin: Origin

    @property
    def features(self) -> list[str]:
        """The names of the columns that the network takes."""
        return [column.name for column in self.columns]

    @property
    def in_features(self) -> int:
        """How many numbers a row becomes."""
        return sum(width_of(column) for column in self.columns)

    def encode(self, table: Table) -> NDArray[np.float32]:
        """Return the inputs float32 (N, in_features) of a table's rows.

        Raises:
            DatasetError: If a column of numbers holds a text, or a number so far out that float32 cannot hold it.
        """
        encoded = np.zeros((len(table.rows), self.in_features), np.float32)
        start = 0
        for column in self.columns:
            values, end = table.columns[column.name], start + width_of(column)
            if isinstance(column, NumberColumn):
                encoded[:, start] = _standardised(table, column, values)
            else:
                places = _places(column, values)
                known = np.flatnonzero(places >= 0)
                encoded[known, start + places[known]] = 1
            start = end
        return encoded

    def labels(self, table: Table, column: str) -> NDArray[np.int64]:
        """Return the labels int64 (N,) of a table's rows.

        Args:
            table: The table; the column has to be read as texts.
            column: That of the labels.

        Raises:
            DatasetError: If a label is missing, or is no class of the network.
        """
        texts = label_texts(table, column)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        number_of_code = np.array([numbers.get(value, -1) for value in texts.values])
        labels: NDArray[np.int64] = number_of_code[texts.codes]
        if len(unknown := np.flatnonzero(labels < 0)):
            raise table.fault(
                unknown[0], column, f"{texts.at(unknown[0])!r} is no class of this network: {listed(self.class_names)}"
            )
        return labels


def fit_schema(
    table: Table, train: NDArray[np.int64], features: Sequence[str], target: str, origin: Origin
) -> TableSchema:
    """Return what training rows say of a table.

    Args:
        table: The table; its target is read as texts.
        train: int64 (M,), the places of the training rows.
        features: The columns that the network is to take, in order.
        target: The column that it is to learn.
        origin: Where the rows come from.

    Raises:
        DatasetError: If a column mixes numbers and texts, has too many different texts, or has no value.
    """
    texts = label_texts(table, target)
    classes = {texts.values[code] for code in np.unique(texts.codes[train])}
    columns = tuple(
        _category_column(table, train, name, values)
        if isinstance(values := table.columns[name], Texts)
        else _number_column(table, name, values[train])
        for name in features
    )
    return TableSchema(target, tuple(in_order(classes)), columns, origin)


def label_texts(table: Table, column: str) -> Texts:
    """Return a column of labels.

    Raises:
        DatasetError: If a label is missing.
    """
    texts = table.columns[column]
    assert isinstance(texts, Texts)
    if len(missing := np.flatnonzero(texts.codes < 0)):
        raise table.fault(missing[0], column, "the label is missing")
    return texts


def in_order(names: set[str]) -> list[str]:
    """Return names sorted, as numbers where all are.

    >>> in_order({"10", "9"}), in_order({"10", "9", "b"})
    (['9', '10'], ['10', '9', 'b'])
    """
    alphabetic = sorted(names)
    numbers = numbers_in(alphabetic)
    return alphabetic if np.isnan(numbers).any() else [alphabetic[place] for place in numbers.argsort(kind="stable")]


def width_of(column: NumberColumn | CategoryColumn) -> int:
    """Return how many inputs a column becomes."""
    return 1 if isinstance(column, NumberColumn) else len(column.categories)


def schema_from_plain(values: object) -> TableSchema | None:
    """Return the schema in the plain values of a checkpoint (`dataclasses.asdict`); None if they are invalid."""
    try:
        return _from_plain(values)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
    ):  # the last is a tensor's, for most it is asked
        return None


def _from_plain(values: Any) -> TableSchema:
    columns: list[NumberColumn | CategoryColumn] = []
    for column in values["columns"]:
        if "categories" in column:
            columns.append(CategoryColumn(_text(column["name"]), _names(column["categories"])))
        else:
            mean, std, median = (float(column[key]) for key in ("mean", "std", "median"))
            if not (np.isfinite([mean, std, median]).all() and std > 0):
                raise ValueError("no numbers to standardise with")
            columns.append(NumberColumn(_text(column["name"]), mean, std, median))
    schema = TableSchema(
        _text(values["target"]),
        _names(values["class_names"]),
        tuple(columns),
        origin_from_plain(values["origin"]),
    )
    if not schema.in_features or len(schema.class_names) < 2 or len(set(schema.features)) < len(schema.features):
        raise ValueError("no table that a network could take")
    return schema


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _names(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError("not a list of names")
    return tuple(map(_text, values))


def _number_column(table: Table, name: str, values: Numbers) -> NumberColumn:
    present = values[~np.isnan(values)]
    if not len(present):
        raise DatasetError(f"{table.path}, column {name} has no value in the training rows; leave it out")
    mean, std = float(present.mean()), float(present.std())
    if not np.ptp(present):  # the mean of equal numbers is off by its rounding
        mean, std = float(present[0]), 1.0
    return NumberColumn(name, mean, std, float(np.median(present)))


def _category_column(table: Table, train: NDArray[np.int64], name: str, texts: Texts) -> CategoryColumn:
    is_number = ~np.isnan(numbers_in(texts.values))
    seen = np.unique(texts.codes[train])
    of_numbers = is_number[seen[seen >= 0]]
    if of_numbers.any():
        # The rarer kind is the likelier mistake.
        row_is_number = np.append(is_number, False)[texts.codes]
        present = texts.codes >= 0
        text_is_odd = 2 * row_is_number.sum() >= present.sum()
        place = np.flatnonzero(present & (~row_is_number if text_is_odd else row_is_number))[0]
        odd = "is a text among numbers" if text_is_odd else "is a number among texts"
        raise table.fault(place, name, f"{texts.at(place)!r} {odd}; mend it, or leave the column out of data.features")
    categories = sorted({texts.values[code] if code >= 0 else "" for code in seen})
    if categories == [""]:
        raise DatasetError(f"{table.path}, column {name} has no value in the training rows; leave it out")
    if len(categories) > MAX_CATEGORIES:
        raise DatasetError(
            f"{table.path}, column {name} has {len(categories):,} different texts, more than the "
            f"{MAX_CATEGORIES:,} that categories may have; leave it out of data.features"
        )
    return CategoryColumn(name, tuple(categories))


def _places(column: CategoryColumn, values: Numbers | Texts) -> NDArray[np.int64]:
    """Return the place of each row's category, -1 for one that the training rows do not have."""
    places = {text: place for place, text in enumerate(column.categories)}
    if not isinstance(values, Texts):  # numbers, which no category is, or nothing at all
        return np.where(np.isnan(values), places.get("", -1), -1)
    # The last is that of the code -1, a missing field.
    place_of_code = np.array([places.get(text, -1) for text in (*values.values, "")])
    found: NDArray[np.int64] = place_of_code[values.codes]
    return found


def _standardised(table: Table, column: NumberColumn, values: Numbers | Texts) -> NDArray[np.float64]:
    if isinstance(values, Texts):
        is_text = np.append(np.isnan(numbers_in(values.values)), False)[values.codes]
        place = np.flatnonzero(is_text)[0]
        raise table.fault(place, column.name, f"{values.at(place)!r} is a text, where training rows have numbers")
    with np.errstate(over="ignore"):
        standardised = (np.where(np.isnan(values), column.median, values) - column.mean) / column.std
        if len(far := np.flatnonzero(~np.isfinite(standardised.astype(np.float32)))):
            raise table.fault(far[0], column.name, f"{values[far[0]]} is too far from the training rows' numbers")
    return standardised
