"""Read a CSV file into columns of numbers and of texts, strictly: what is wrong is named by row and column.

Rows are counted as in the file, the header being row 1. Knows nothing of classes, training or tensors. pandas reads; it
is loaded on first use.
"""

import csv
import itertools
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError, DatasetError

SNIFFED_ROWS = 1000  # tell most columns of texts from those of numbers, so that a long file is read once
LARGEST = float(np.finfo(np.float32).max)
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True)
class Texts:
    """A column of texts, each different one held once.

    Args:
        codes: int64 (N,), the place of each row's text in `values`; -1 where the field is empty.
        values: The different texts.
    """

    codes: NDArray[np.int64]
    values: tuple[str, ...]

    def at(self, place: int) -> str:
        """Return the text of a row, by its place among the rows read; nothing for an empty field."""
        code = self.codes[place]
        return self.values[code] if code >= 0 else ""


Numbers = NDArray[np.float64]  # (N,), NaN where the field is empty


@dataclass(frozen=True)
class Table:
    """Some columns of a CSV file.

    Args:
        path: The file.
        rows: int64 (N,), the number of each row in the file, ascending from 2.
        columns: What each column holds, by name: numbers if every field in it that is not empty is one.
    """

    path: Path
    rows: NDArray[np.int64]
    columns: dict[str, Numbers | Texts]

    def fault(self, place: int, column: str, what: str) -> DatasetError:
        """Return the error that a field is not what it must be.

        Args:
            place: Of its row among the rows read.
            column: Its column.
            what: What is wrong with it.
        """
        return DatasetError(f"{self.path}, row {self.rows[place]}, column {column}: {what}")


def read_header(path: Path) -> list[str]:
    """Return the names in the first row of a CSV file; a column may have none, which is an empty one.

    Raises:
        DatasetError: If the file cannot be read as CSV in UTF-8, is empty, or names a column twice.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            records = csv.reader(file, skipinitialspace=True)
            names, first = next(records, []), next(records, [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _not_csv(path, error) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not any(names):
        raise DatasetError(f"{path}, row 1 is empty; the names of the columns are expected there")
    for place, name in enumerate(names):
        if name and name in names[:place]:
            raise DatasetError(f"{path}, row 1: two columns have the name {name}")
    if len(first) > len(names):  # pandas would take the first field for the name of the row
        raise DatasetError(f"{path}, row 2 has {len(first)} fields, the header has {len(names)}")
    return names


def check_columns(path: Path, header: Sequence[str], wanted: Iterable[str]) -> None:
    """Check that columns are there.

    Raises:
        DatasetError: If one is not.
    """
    for name in wanted:
        if name not in header:
            advice = did_you_mean(name, filter(None, header))
            for separator, word in OTHER_SEPARATORS.items():
                if len(header) == 1 and separator in header[0]:
                    advice = f"; its fields seem to be separated by {word}; save it with commas"
            raise DatasetError(f"{path} has no column {name}{advice}")


def read_table(path: Path, columns: Sequence[str], texts: Collection[str] = ()) -> Table:
    """Read columns of a CSV file.

    Fields are separated by commas; spaces after them are no part of a field. An empty field is missing, and so is what
    pandas takes for that: NA, NaN, null and the like. A row that ends early lacks its last fields. A row without any
    field is left out, but counted.

    Args:
        path: The file, in UTF-8.
        columns: Names of the columns to read.
        texts: Those of them to take as texts, whatever they hold.

    Raises:
        ConfigError: If pandas is not installed.
        DatasetError: If the file cannot be read, is no table, has no rows, lacks a column, or holds a number
            that is infinite or too large for float32.
    """
    header = read_header(path)
    check_columns(path, header, columns)
    places = {name: header.index(name) for name in columns}
    # What is not asked for is read all the same, or pandas would not find rows that are too long.
    as_texts = set(range(len(header))) - set(places.values()) | {places[name] for name in texts}
    as_texts |= _columns_of_texts(_read(path, len(header), as_texts, SNIFFED_ROWS))
    frame = _read(path, len(header), as_texts)
    if late := _columns_of_texts(frame) - as_texts:
        frame = _read(path, len(header), as_texts | late)
    filled = ~frame.isna().all(axis=1).to_numpy()
    rows = np.flatnonzero(filled) + 2
    if not len(rows):
        raise DatasetError(f"{path} has a header and no rows")
    if not filled.all():
        frame = frame[filled]
    table = Table(path, rows, {name: _column(frame[place], name in texts) for name, place in places.items()})
    for name, column in table.columns.items():
        if not isinstance(column, Texts) and len(large := np.flatnonzero(np.abs(column) > LARGEST)):
            value = column[large[0]]
            raise table.fault(
                large[0], name, f"{value} is infinite, or too large for a float32; numbers must be finite"
            )
    return table


def need_pandas() -> Any:
    """Return pandas.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("reading a table takes pandas: pip install 'mnist-lightning[tabular]'") from error
    return pandas


def _read(path: Path, width: int, as_texts: Collection[int], rows: int | None = None) -> Any:
    """Return a data frame of the first rows, or of all; its columns are called by their places."""
    pandas = need_pandas()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            return pandas.read_csv(
                path,
                header=0,
                names=range(width),
                dtype=dict.fromkeys(as_texts, str),
                nrows=rows,
                encoding="utf-8",
                compression=None,
                skipinitialspace=True,
                skip_blank_lines=False,
                low_memory=False,
            )
    except (UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        raise _not_csv(path, error) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _columns_of_texts(frame: Any) -> set[int]:
    return {place for place, dtype in enumerate(frame.dtypes) if getattr(dtype, "kind", "O") not in "iuf"}


def _column(series: Any, is_text: bool) -> Numbers | Texts:
    if series.dtype.kind in "iuf":
        numbers: Numbers = series.to_numpy(np.float64)
        return numbers
    codes, different = need_pandas().factorize(series)
    values = tuple(map(str, different))
    if not is_text:
        as_numbers = numbers_in(values)
        if not np.isnan(as_numbers).any():
            found: Numbers = np.append(as_numbers, np.nan)[codes]  # of the code -1, the last
            return found
    return Texts(codes, values)


def numbers_in(texts: Sequence[str]) -> Numbers:
    """Return the number that each text is, NaN for a text that is none.

    >>> numbers_in(["1e3", "three"]).tolist()
    [1000.0, nan]
    """
    return np.asarray(need_pandas().to_numeric(np.array(texts, dtype=object), errors="coerce"), np.float64)


def count_missing(column: Numbers | Texts, rows: NDArray[np.int64]) -> int:
    """Return how many fields of a column are empty in some of its rows, given by their places."""
    return int((column.codes[rows] < 0 if isinstance(column, Texts) else np.isnan(column[rows])).sum())


def _not_csv(path: Path, error: Exception) -> DatasetError:
    if isinstance(error, UnicodeDecodeError):
        return DatasetError(f"{path}, line {_line_of_bad_text(path)} is not text in UTF-8; save the table in UTF-8")
    if match := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error)):
        return DatasetError(f"{path}, row {match[2]} has {match[3]} fields, the header has {match[1]}")
    if match := re.search(r"EOF inside string starting at row (\d+)", str(error)):
        return DatasetError(f"{path}, row {int(match[1]) + 1}: a quotation mark opens a field that never ends")
    return DatasetError(f"{path} is no CSV table: {' '.join(str(error).split())}")


def _line_of_bad_text(path: Path) -> int:
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline()
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
            if not line:
                return number
    raise AssertionError("count has no end")
