import pickle
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from mnist_lightning import TabularDataModule, TabularDataset
from mnist_lightning.data.table.datamodule import Rows
from mnist_lightning.errors import CheckpointError, ConfigError, DatasetError
from tests.data.table.tables import IRIS_FEATURES, MIXED, MIXED_HEADER, write_csv, write_iris, write_mixed


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    return write_iris(tmp_path / "iris.csv")


def module(path: Path, target: str = "species", **options: object) -> TabularDataModule:
    return TabularDataModule(str(path), target, **options)  # type: ignore[arg-type]


def fit(path: Path, target: str = "species", **options: object) -> TabularDataModule:
    data = module(path, target, **options)
    data.setup("fit")
    return data


def numbers(rows: Rows) -> list[int]:
    """Return the numbers in the file of the rows that are served."""
    chosen: list[int] = rows.numbers[rows.indices.numpy()].tolist()
    return chosen


# The dataset of the lab.


def test_an_item_is_float32_features_and_an_int64_label(iris: Path) -> None:
    frame = pandas.read_csv(iris)
    features = ["petal_length", "sepal_width"]
    dataset = TabularDataset(iris, features, "species")
    assert len(dataset) == 150
    row, label = dataset[70]
    assert (row.dtype, row.shape, label.dtype, label.shape) == (torch.float32, (2,), torch.int64, ())
    assert row.tolist() == frame[features].to_numpy(np.float32)[70].tolist()
    assert [int(dataset[place][1]) for place in range(150)] == frame["species"].astype("category").cat.codes.tolist()
    with pytest.raises(IndexError):
        dataset[150]


def test_integer_labels_are_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", ("a", "y"), [(1, 7), (2, 3), (3, 7)])
    assert TabularDataset(str(path), ["a"], "y").labels.tolist() == [7, 3, 7]


def test_the_dataset_works_with_torchs_loader_and_its_worker_processes(iris: Path) -> None:
    dataset = TabularDataset(iris, list(IRIS_FEATURES), "species")
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).features, dataset.features)
    rows, labels = next(iter(DataLoader(dataset, batch_size=32)))
    assert (rows.shape, labels.shape) == ((32, 4), (32,))


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (["size", "colour"], DatasetError, "row 2, column colour: 'red' is not a number"),
        (["size", "age"], DatasetError, "row 6, column age: the number is missing"),
        (["size", "weight"], DatasetError, "has no column weight"),
        (["size", "size"], ConfigError, "contains size twice"),
        (["size", "kind"], ConfigError, "must not contain the target kind"),
        ([], ConfigError, "must name a column"),
    ],
)
def test_the_dataset_rejects_features_that_are_not_numbers(
    tmp_path: Path, features: list[str], error: type[Exception], message: str
) -> None:
    path = write_mixed(tmp_path / "mixed.csv")
    with pytest.raises(error, match=message):
        TabularDataset(path, features, "kind")


# The data module.


def test_every_row_is_in_one_split_stratified_by_class(iris: Path) -> None:
    data = fit(iris)
    splits = {name: numbers(data.samples(name)) for name in ("train", "val", "test")}
    assert sorted(row for rows in splits.values() for row in rows) == list(range(2, 152))
    assert [len(splits[name]) for name in splits] == [106, 22, 22]  # 15 % of 150 is 22.5
    for name in ("val", "test"):
        assert all(count in (7, 8) for count in Counter((row - 2) // 50 for row in splits[name]).values())


def test_training_rows_alone_are_standardised_to_mean_0_and_deviation_1(iris: Path) -> None:
    data = fit(iris)
    values = pandas.read_csv(iris)[list(IRIS_FEATURES)].to_numpy()
    train, val = ([row - 2 for row in numbers(data.samples(name))] for name in ("train", "val"))
    scaler = StandardScaler().fit(values[train])
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    rows, _ = next(iter(loader))
    assert np.allclose(rows, scaler.transform(values[val]), atol=1e-6)  # rounding of float32


def test_an_epochs_order_is_a_function_of_seed_and_epoch(iris: Path) -> None:
    def batches(seed: int, epoch: int) -> list[torch.Tensor]:
        loader = fit(iris, batch_size=16, seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return [rows for rows, _ in loader]

    first = batches(0, 3)
    assert [len(rows) for rows in first] == [16] * 6 + [10]
    assert all(torch.equal(a, b) for a, b in zip(first, batches(0, 3), strict=True))
    assert not torch.equal(first[0], batches(0, 4)[0])
    assert not torch.equal(first[0], batches(1, 3)[0])
    assert torch.equal(torch.cat(first).sort(dim=0).values, torch.cat(batches(1, 4)).sort(dim=0).values)


def test_features_default_to_all_other_named_columns(tmp_path: Path) -> None:
    rows = [(number, *row) for number, row in enumerate(MIXED)]
    path = write_csv(tmp_path / "x.csv", ("", *MIXED_HEADER), rows)
    assert fit(path, "kind").schema.features == list(MIXED_HEADER[:-1])
    assert fit(path, "kind", features=["age", "size"]).schema.features == ["age", "size"]


def test_missing_fields_and_their_replacement_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_mixed(tmp_path / "mixed.csv")
    data = fit(path, "kind")
    out = capsys.readouterr().out
    assert f"{path}: 28 to train on, 6 to validate on, 6 to test on; 4 features, 2 classes: cat, dog" in out
    train = pandas.read_csv(path).iloc[[row - 2 for row in numbers(data.samples("train"))]]
    missing = train["age"].isna().sum()
    assert missing
    assert f"column age: empty in {missing} training rows; replaced by the median {train['age'].median():g}" in out
    assert f"column colour: empty in {train['colour'].isna().sum()} training rows; a category of its own" in out


def test_given_validation_and_test_files_are_used_whole(tmp_path: Path, iris: Path) -> None:
    lines = iris.read_text().splitlines(keepends=True)
    for name, rows in (("val", lines[40:60]), ("test", lines[90:110])):
        (tmp_path / f"{name}.csv").write_text("".join([lines[0], *rows]))
    files = {name: str(tmp_path / f"{name}.csv") for name in ("val", "test")}
    data = fit(iris, val_csv_file=files["val"], test_csv_file=files["test"])
    assert len(data.samples("train").indices) == 150
    assert len(data.samples("val").indices) == 20
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch[1].tolist() == [1] * 11 + [2] * 9  # the lines begin with row 91


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 10, "all rows have the label a; at least two classes needed"),
        (["a"] * 10 + ["b"] * 2, "row 12, column y: the class b has 2 rows; at least 3 needed, one for each split"),
        ([f"{n}.5" for n in range(1001)] * 3, "has 1,001 different labels, more than 1,000"),
    ],
)
def test_labels_that_cannot_be_classes_are_rejected(tmp_path: Path, labels: list[str], message: str) -> None:
    path = write_csv(tmp_path / "x.csv", ("x", "y"), list(enumerate(labels)))
    with pytest.raises(DatasetError, match=message):
        fit(path, "y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv_file": ""}, "data.csv_file must name a table"),
        ({"target": ""}, "data.target must name the column to predict"),
        ({"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"split_seed": -1}, "data.split_seed must be at least 0, got -1"),
        ({"features": []}, "data.features must name a column"),
    ],
)
def test_options_out_of_range_are_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TabularDataModule(**{"csv_file": "x.csv", "target": "y", **options})  # type: ignore[arg-type]


# With the form that a checkpoint holds.


def restored(trained: TabularDataModule, path: Path, **options: object) -> TabularDataModule:
    data = module(path, "species", **options)
    data.restore(asdict(trained.schema))
    return data


def test_of_the_training_file_only_its_test_rows_are_scored_also_under_another_name(iris: Path) -> None:
    trained = fit(iris)
    moved = iris.rename(iris.with_name("moved.csv"))
    data = restored(trained, moved)
    data.setup("test")
    assert numbers(data.samples("test")) == numbers(trained.samples("test"))


def test_another_file_is_scored_whole_with_the_checkpoints_schema(tmp_path: Path, iris: Path) -> None:
    trained = fit(iris)
    header, *lines = iris.read_text().splitlines(keepends=True)
    other = tmp_path / "other.csv"
    other.write_text("".join([header, *lines[60:80]]))
    data = restored(trained, other)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert torch.equal(batch[0], trained.samples("train").inputs[60:80])
    assert batch[1].tolist() == [1] * 20
    rows = data.training_rows()
    assert rows
    assert numbers(rows) == numbers(trained.samples("train"))
    assert len(data.samples("test").indices) == 20, "and the rows to score stay what they were"


def test_a_training_file_that_has_changed_is_rejected(iris: Path) -> None:
    trained = fit(iris)
    iris.write_text(iris.read_text() + "5.1,3.5,1.4,0.2,setosa\n")
    with pytest.raises(DatasetError, match="has changed since the network was trained on it"):
        restored(trained, iris).setup("test")
    with pytest.raises(DatasetError, match="has changed since the run began"):
        restored(trained, iris).setup("fit")
    assert restored(trained, iris).training_rows() is None


def test_a_changed_training_file_is_rejected_by_any_path_to_it(iris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fit(iris)
    iris.write_text(iris.read_text() + "5.1,3.5,1.4,0.2,setosa\n")
    monkeypatch.chdir(iris.parent)
    with pytest.raises(DatasetError, match="has changed since the network was trained on it"):
        restored(trained, Path(iris.name)).setup("test")


def test_a_test_file_that_was_given_in_training_has_to_be_given_again(tmp_path: Path, iris: Path) -> None:
    trained = fit(iris, test_csv_file=str(write_iris(tmp_path / "test.csv")))
    with pytest.raises(ConfigError, match=r"data\.test_csv_file must name a file, as in training"):
        restored(trained, iris).setup("test")


def test_another_split_of_the_training_file_is_never_scored(iris: Path) -> None:
    trained = fit(iris)
    with pytest.raises(ConfigError, match="rows that the network was trained on would be scored"):
        restored(trained, iris, split_seed=1).setup("test")


def test_a_restored_schema_must_be_that_of_a_table_with_the_requested_features(iris: Path) -> None:
    trained = fit(iris)
    with pytest.raises(ConfigError, match=r"data\.features must be those that the network was trained with"):
        restored(trained, iris, features=["sepal_width"])
    with pytest.raises(CheckpointError, match="does not define the columns that its network takes"):
        module(iris).restore({"height": 28})
