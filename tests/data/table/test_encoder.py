import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mnist_lightning.data.splits import TrainingSource
from mnist_lightning.data.table.encoder import TableSchema, fit_schema, schema_from_plain
from mnist_lightning.data.table.reader import Table, read_table
from mnist_lightning.errors import DatasetError
from tests.data.table.tables import MIXED_HEADER, write_mixed

ORIGIN = TrainingSource("mine.csv", "", 0, ("val", "test"))
FEATURES = list(MIXED_HEADER[:-1])


def fitted(path: Path, text: str, train: list[int], features: tuple[str, ...] = ("x",)) -> tuple[Table, TableSchema]:
    """Return a table and the schema fitted to its training rows."""
    path.write_text(text)
    table = read_table(path, [*features, "y"], texts=["y"])
    return table, fit_schema(table, np.array(train), "y", ORIGIN)


def test_rows_are_encoded_as_scikit_learn_encodes_them_by_training_rows_alone(tmp_path: Path) -> None:
    path = write_mixed(tmp_path / "mixed.csv")
    table = read_table(path, MIXED_HEADER, texts=["kind"])
    train = np.sort(np.random.default_rng(0).permutation(40)[:25])
    encoded = fit_schema(table, train, "kind", ORIGIN).encode(table)

    frame = pandas.read_csv(path, dtype={"colour": str, "wild": str})[FEATURES]
    frame[["colour", "wild"]] = frame[["colour", "wild"]].fillna("")
    numbers, texts = ["size", "age"], ["colour", "wild"]
    sklearn = make_column_transformer(
        (make_pipeline(StandardScaler(), SimpleImputer(strategy="median")), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
    ).fit(frame.iloc[train])
    size, age, *others = sklearn.transform(frame).T
    expected = np.stack([size, *others[:3], age, *others[3:]], axis=1)  # in the order of the columns
    assert encoded.dtype == np.float32
    assert np.allclose(encoded, expected, atol=1e-6)  # rounding of float32


def test_a_column_of_equal_numbers_becomes_zeros(tmp_path: Path) -> None:
    table, schema = fitted(tmp_path / "x.csv", "x,y\n0.1,a\n0.1,b\n0.1,a\n", [0, 1, 2])
    assert schema.encode(table).tolist() == [[0], [0], [0]]


def test_an_unknown_category_is_encoded_as_zeros(tmp_path: Path) -> None:
    table, schema = fitted(tmp_path / "x.csv", "x,y\nred,a\nblue,b\ngreen,a\n,b\n5,a\n", [0, 1])
    assert schema.encode(table).tolist() == [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "c"], ("a", "b", "c")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["True", "False", "True"], ("False", "True")),
        (["1.5", "x", "2"], ("1.5", "2", "x")),
    ],
)
def test_labels_of_any_type_are_classes_in_order(tmp_path: Path, labels: list[str], names: tuple[str, ...]) -> None:
    rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
    table, schema = fitted(tmp_path / "x.csv", f"x,y\n{rows}", [0, 1, 2])
    assert schema.class_names == names
    assert [names[label] for label in schema.labels(table, "y")] == labels


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,a\n2,b\n3,a\nx,b\n", "row 5, column x: 'x' is text among numbers"),
        ("red,a\n7,b\nblue,a\nred,b\n", "row 3, column x: '7' is a number among texts"),
        (",a\n,b\n,a\n5,b\n", "column x has no value in the training rows"),
        ("1,a\n2,\n3,a\n4,b\n", "row 3, column y: the label is missing"),
        ("1,a\n2,NA\n3,a\n4,b\n", "row 3, column y: the label is missing"),
        ("".join(f"name {n},a\n" for n in range(1001)), "has 1,001 different texts, more than 1,000"),
    ],
)
def test_a_column_that_cannot_be_encoded_is_reported(tmp_path: Path, rows: str, message: str) -> None:
    count = rows.count("\n")
    with pytest.raises(DatasetError) as caught:
        fitted(tmp_path / "x.csv", f"x,y\n{rows}", list(range(3 if count == 4 else count)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("5,a\nfive,b\n", "row 3, column x: 'five' is text, but the training rows hold numbers"),
        ("5,a\n3e38,b\n", "row 3, column x: 3e+38 is too far from the numbers in the training rows"),
        ("5,a\n5,z\n", "row 3, column y: 'z' is not a class of this network: a, b"),
        ("5,a\n5,\n", "row 3, column y: the label is missing"),
    ],
)
def test_another_table_that_does_not_fit_is_rejected_with_row_and_column(
    tmp_path: Path, rows: str, message: str
) -> None:
    _, schema = fitted(tmp_path / "x.csv", "x,y\n0.001,a\n0.002,b\n", [0, 1])
    other = tmp_path / "other.csv"
    other.write_text(f"x,y\n{rows}")
    table = read_table(other, ["x", "y"], texts=["y"])
    with pytest.raises(DatasetError) as caught:
        schema.encode(table), schema.labels(table, "y")
    assert f"{other}, {message}" in str(caught.value)


def test_a_schema_survives_the_round_trip_through_plain_values(tmp_path: Path) -> None:
    table = read_table(write_mixed(tmp_path / "mixed.csv"), MIXED_HEADER, texts=["kind"])
    schema = fit_schema(table, np.arange(40), "kind", ORIGIN)
    assert schema_from_plain(asdict(schema)) == schema
    assert schema_from_plain(json.loads(json.dumps(asdict(schema)))) == schema
    assert (schema.in_features, schema.features) == (1 + 3 + 1 + 2, FEATURES)


@pytest.mark.parametrize(
    "damage",
    [
        {"columns": []},
        {"columns": [{"name": "x", "mean": 0.0, "std": 0.0, "median": 0.0}]},
        {"columns": [{"name": "x", "mean": float("nan"), "std": 1.0, "median": 0.0}]},
        {"columns": [{"name": 3, "categories": ("a",)}]},
        {"columns": 5},
        {"class_names": ("a",)},
        {"origin": None},
        {"target": None},
    ],
)
def test_an_invalid_schema_is_read_as_none(tmp_path: Path, damage: dict[str, object]) -> None:
    _, schema = fitted(tmp_path / "x.csv", "x,y\n1,a\n2,b\n", [0, 1])
    assert schema_from_plain(asdict(schema)) == schema
    assert schema_from_plain(asdict(schema) | damage) is None
    assert schema_from_plain(None) is None
