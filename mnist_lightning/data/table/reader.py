"""Read a CSV file strictly into columns of numbers and of text; errors name row and column.

Rows are counted as in the file, the header being row 1. Knows nothing of classes, training or tensors. pandas, which
reads the file, is imported on first use.
"""

import csv
import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError, DatasetError

SNIFFED_ROWS = 1000  # enough to recognise most text columns, so that a long file is read once
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Texts:
    """A column of text; each different text is held once."""

    codes: NDArray[np.int64]  # (N,), the index of each row's text in `values`; -1 for an empty field
    values: tuple[str, ...]  # the different texts

    def at(self, index: int) -> str:
        """Return the text of the row with an index among the rows read; the empty text for an empty field."""
        code = self.codes[index]
        return self.values[code] if code >= 0 else ""

    def are_numbers(self, missing: bool = False) -> NDArray[np.bool_]:
        """Return bool (N,), whether the text of each row is a number, and `missing` for an empty field."""
        return np.append(~np.isnan(numbers_in(self.values)), missing)[self.codes]


Numbers = NDArray[np.float64]  # (N,), NaN for an empty field


@dataclass(frozen=True)
class Table:
    """Some columns of a CSV file; one holds numbers if every field in it is a number or empty."""

    path: Path
    rows: NDArray[np.int64]  # (N,), the number of each row in the file, ascending from 2
    columns: dict[str, Numbers | Texts]

    def numbers(self, column: str, otherwise: str) -> Numbers:
        """Return a column of numbers; a text in it is a DatasetError, which quotes it and ends as given."""
        values = self.columns[column]
        if isinstance(values, Texts):
            row = int(np.argmin(values.are_numbers(missing=True)))
            raise self.fault(row, column, f"{values.at(row)!r} {otherwise}")
        return values

    def fault(self, index: int, column: str, what: str) -> DatasetError:
        """Return the error that a field is invalid, in the row with an index among the rows read."""
        return DatasetError(f"{self.path}, row {self.rows[index]}, column {column}: {what}")


def read_header(path: Path) -> list[str]:
    """Return the column names in the first row of a CSV file; a name may be empty, but not occur twice."""
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
        raise DatasetError(f"{path}, row 1 is empty; it must hold the names of the columns")
    for index, name in enumerate(names):
        if name and name in names[:index]:
            raise DatasetError(f"{path}, row 1: two columns have the name {name}")
    if len(first) > len(names):  # pandas would take the first field for a row label
        raise DatasetError(f"{path}, row 2 has {len(first)} fields, the header has {len(names)}")
    return names


def check_features(features: Sequence[str], target: str) -> None:
    """Check that features are at least one column, each once, and not the target."""
    if not features:
        raise ConfigError("data.features must name a column; null takes all but the target")
    for name in features:
        if name == target:
            raise ConfigError(f"data.features must not contain the target {target}")
        if list(features).count(name) > 1:
            raise ConfigError(f"data.features contains {name} twice")


def read_table(path: Path, columns: Sequence[str] | None, texts: Collection[str] = ()) -> Table:
    """Read columns of a CSV file in UTF-8, or all that have a name; those in `texts` as text, whatever they hold.

    Fields are separated by commas; spaces after a comma are ignored. A field is missing if it is empty or one of the
    markers that pandas knows: NA, NaN, null and so on. In a row that ends early the last fields are missing. A row
    without any field is skipped, but counted.

    Raises:
        DatasetError: If the file is not a table with these columns and rows, or a number is too large for float32.
    """
    header = read_header(path)
    columns = list(filter(None, header)) if columns is None else columns
    for name in (*columns, *texts):
        if name not in header:
            advice = did_you_mean(name, filter(None, header))
            if len(header) == 1 and (match := re.search("[;|\t]", header[0])):
                advice = f"; its fields seem to be separated by {match[0]!r}; save it with commas"
            raise DatasetError(f"{path} has no column {name}{advice}")
    positions = {name: header.index(name) for name in columns}
    # The other columns are read too, or pandas would not detect rows that are too long.
    as_text = set(range(len(header))) - set(positions.values()) | {positions[name] for name in texts}
    as_text |= _text_columns(_read(path, len(header), as_text, SNIFFED_ROWS))
    frame = _read(path, len(header), as_text)
    if late := _text_columns(frame) - as_text:
        frame = _read(path, len(header), as_text | late)
    filled = ~frame.isna().all(axis=1).to_numpy()
    rows = np.flatnonzero(filled) + 2
    if not len(rows):
        raise DatasetError(f"{path} has a header and no rows")
    frame = frame[filled]
    table = Table(path, rows, {name: _column(frame[position], name in texts) for name, position in positions.items()})
    for name, column in table.columns.items():
        if not isinstance(column, Texts) and len(large := np.flatnonzero(np.abs(column) > LARGEST)):
            value = column[large[0]]
            raise table.fault(large[0], name, f"{value} is infinite, or too large for float32; numbers must be finite")
    return table


def need_pandas() -> Any:
    """Return pandas; a ConfigError names the extra that installs it."""
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("reading a table needs pandas: pip install 'mnist-lightning[tabular]'") from error
    return pandas


def _read(path: Path, width: int, as_text: Collection[int], rows: int | None = None) -> Any:
    """Return a data frame of the first `rows` rows, or of all; its columns are named by their positions."""
    pandas = need_pandas()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            return pandas.read_csv(
                path,
                header=0,
                names=range(width),
                dtype=dict.fromkeys(as_text, str),
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


def _text_columns(frame: Any) -> set[int]:
    return {position for position, dtype in enumerate(frame.dtypes) if getattr(dtype, "kind", "O") not in "iuf"}


def _column(series: Any, is_text: bool) -> Numbers | Texts:
    if series.dtype.kind in "iuf":
        return np.asarray(series, np.float64)
    codes, different = need_pandas().factorize(series)
    texts = Texts(codes, tuple(map(str, different)))
    if not is_text and texts.are_numbers(missing=True).all():
        # An empty field has the code -1, the last.
        return np.asarray(np.append(numbers_in(texts.values), np.nan)[codes])
    return texts


def numbers_in(texts: Sequence[str]) -> Numbers:
    """Return the number that each text stands for, NaN for any other text.

    >>> numbers_in(["1e3", "three"]).tolist()
    [1000.0, nan]
    """
    return np.asarray(need_pandas().to_numeric(np.array(texts, dtype=object), errors="coerce"), np.float64)


def is_missing(column: Numbers | Texts) -> NDArray[np.bool_]:
    """Return bool (N,), whether the field of each row is empty."""
    return column.codes < 0 if isinstance(column, Texts) else np.isnan(column)


def _not_csv(path: Path, error: Exception) -> DatasetError:
    if isinstance(error, UnicodeDecodeError):
        text = path.read_text("utf-8", errors="replace")
        line = text.count("\n", 0, text.index("\N{REPLACEMENT CHARACTER}")) + 1
        return DatasetError(f"{path}, line {line} is not valid UTF-8; save the table in UTF-8")
    if match := re.search(r"EOF inside string starting at row (\d+)", str(error)):  # which pandas counts from 0
        return DatasetError(f"{path}, row {int(match[1]) + 1}: a quotation mark opens a field that is never closed")
    return DatasetError(f"{path} is not a CSV table: {' '.join(str(error).split())}")
