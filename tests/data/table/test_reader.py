import csv
import io
import math
import os
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnist_lightning.data.table.reader import Table, Texts, read_header, read_table
from mnist_lightning.errors import ConfigError, DatasetError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def read(path: Path, text: str | bytes, texts: tuple[str, ...] = ()) -> Table:
    """Read all named columns of a text."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, [name for name in read_header(path) if name], texts)


def texts_of(column: object) -> list[str]:
    assert isinstance(column, Texts)
    return [column.at(place) for place in range(len(column.codes))]


def test_numbers_are_those_that_pandas_reads(path: Path) -> None:
    table = read(path, "a,b\n1,2.5\n-3e2,\n4,NaN\n")
    expected = pandas.read_csv(path)
    for name in ("a", "b"):
        column = table.columns[name]
        assert not isinstance(column, Texts)
        assert np.array_equal(column, expected[name].astype(float), equal_nan=True)
    assert table.rows.tolist() == [2, 3, 4]


def test_one_text_makes_a_text_column_with_fields_as_written(path: Path) -> None:
    table = read(path, "a,b\n01,true\nx,False\n,TRUE\n")
    assert texts_of(table.columns["a"]) == ["01", "x", ""]
    assert texts_of(table.columns["b"]) == ["true", "False", "TRUE"]


def test_a_column_is_read_as_text_on_request(path: Path) -> None:
    assert texts_of(read(path, "a\n1\n01\n1.0\n", texts=("a",)).columns["a"]) == ["1", "01", "1.0"]


def test_a_late_text_makes_a_text_column_too(path: Path) -> None:
    table = read(path, "a\n" + "1\n" * 5000 + "x\n")
    assert texts_of(table.columns["a"]) == ["1"] * 5000 + ["x"]


def test_numbers_beyond_the_range_of_integers_are_numbers(path: Path) -> None:
    assert read(path, "a\n99999999999999999999999\n2\n").columns["a"].tolist() == [1e23, 2]  # type: ignore[union-attr]


def test_empty_rows_are_skipped_but_counted(path: Path) -> None:
    table = read(path, "a,b\n1,x\n\n,\n2,y\n\n")
    assert table.rows.tolist() == [2, 5]
    assert table.columns["a"].tolist() == [1, 2]  # type: ignore[union-attr]


def test_in_a_short_row_the_last_fields_are_missing(path: Path) -> None:
    column = read(path, "a,b\n1,2\n3\n").columns["b"]
    assert not isinstance(column, Texts)
    assert column[0] == 2
    assert math.isnan(column[1])


def test_spaces_after_commas_a_byte_order_mark_and_windows_line_ends_are_accepted(path: Path) -> None:
    table = read(path, b"\xef\xbb\xbfa, b\r\n1, x\r\n2, y\r\n")
    assert table.columns["a"].tolist() == [1, 2]  # type: ignore[union-attr]
    assert texts_of(table.columns["b"]) == ["x", "y"]


def test_a_column_without_a_name_is_skipped(path: Path) -> None:
    assert list(read(path, ",a\n0,1\n1,2\n").columns) == ["a"]


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "row 1 is empty"),
    "blank header": ("\n1,2\n", "row 1 is empty"),
    "header only": ("a,b\n", "has a header and no rows"),
    "only empty rows": ("a,b\n,\n\n", "has a header and no rows"),
    "name twice": ("a,b,a\n1,2,3\n", "row 1: two columns have the name a"),
    "first row too long": ("a,b\n1,2,3\n4,5\n", "row 2 has 3 fields, the header has 2"),
    "all rows too long": ("a,b\n1,2,3\n4,5,6\n", "row 2 has 3 fields, the header has 2"),
    "later row too long": ("a,b\n1,2\n\n3,4,5\n", "Expected 2 fields in line 4, saw 3"),
    "row too long after a line break in a field": ('a,b\n1,"x\ny"\n3,4,5\n', "Expected 2 fields in line 3, saw 3"),
    "Latin-1": (b"a,b\n1,x\n2,caf\xe9\n", "line 3 is not valid UTF-8"),
    "Latin-1 in a header": (b"a,b\xe9\n1,x\n", "line 1 is not valid UTF-8"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "line 1 is not valid UTF-8"),
    "infinite": ("a,b\n1,2\n3,inf\n", "row 3, column b: inf is infinite, or too large for float32"),
    "too large": ("a,b\n1,2\n-1e39,5\n", "row 3, column a: -1e+39 is infinite, or too large for float32"),
    "open quotation mark": ('a,b\n1,2\n3,"4\n', "row 3: a quotation mark opens a field that is never closed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_names_row_and_column(path: Path, name: str) -> None:
    content, message = FAULTS[name]
    with pytest.raises(DatasetError) as caught:
        read(path, content)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "wanted", "message"),
    [
        ("length,width\n1,2\n", "lenght", "has no column lenght; did you mean length?"),
        ("length,width\n1,2\n", "species", "has no column species; expected one of length, width"),
        ("length;width\n1;2\n", "width", "its fields seem to be separated by ';'"),
    ],
)
def test_a_missing_column_is_reported_with_the_existing_ones(
    path: Path, content: str, wanted: str, message: str
) -> None:
    path.write_text(content)
    with pytest.raises(DatasetError, match=message.replace("?", r"\?")):
        read_table(path, [wanted])


def test_a_missing_or_unreadable_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DatasetError, match="no such CSV file"):
            read_header(missing)
    path = tmp_path / "mine.csv"
    path.write_text("a\n1\n")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DatasetError, match="cannot be read: Permission denied"):
        read_header(path)


def test_without_pandas_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'mnist-lightning\[tabular\]'"):
        read(path, "a\n1\n")


NAMES = ("a", "b", "c")
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6) | st.floats(width=32).map(repr)


@given(rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=8))
@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_as_pythons_csv_reads_it(path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([NAMES, *rows])
    try:
        table = read(path, text.getvalue(), texts=NAMES)
    except DatasetError as error:
        assert "no rows" in str(error)  # noqa: PT017  # what is read below is checked
        return
    expected = list(csv.reader(io.StringIO(text.getvalue()), skipinitialspace=True))[1:]
    missing = pandas._libs.parsers.STR_NA_VALUES
    for place, row in enumerate(table.rows.tolist()):
        for name, field in zip(NAMES, expected[row - 2], strict=True):
            column = table.columns[name]
            assert isinstance(column, Texts)
            assert column.at(place) == ("" if field in missing else field)


@given(content=st.binary(max_size=80) | st.text(alphabet='ab1.,"\n\r; ', max_size=60).map(str.encode))
@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_rejected_in_one_line(path: Path, content: bytes) -> None:
    try:
        table = read(path, content)
    except DatasetError as error:
        assert "\n" not in str(error).replace(str(path), "")  # noqa: PT017  # reading without an error is fine too
    else:
        assert all(
            len(column.codes if isinstance(column, Texts) else column) == len(table.rows)
            for column in table.columns.values()
        )
