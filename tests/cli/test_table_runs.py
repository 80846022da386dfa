"""A table on the command line: train, test, resume, predict, and mistakes."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mnist_lightning import TableClassifier, TabularDataModule
from mnist_lightning.data.splits import stratified_split
from tests.conftest import Command, run_in
from tests.data.table.tables import IRIS_FEATURES, write_csv, write_iris, write_mixed
from tests.training.conftest import read_events

pytestmark = pytest.mark.usefixtures("undrawn")  # except for the run that they share

TABLE = ("--data", "TabularDataModule", "--data.csv_file", "mine.csv", "--data.target", "species")
SMALL = (*TABLE, "--data.batch_size", "16", "--model.lr", "0.01", "--model.dropout", "0.1")
LOGS, CHECKPOINTS = Path("lightning_logs/version_0"), Path("checkpoints/version_0")


def result(name: str = "test.json") -> dict[str, Any]:
    """Return the newest result of this name."""
    path = max(LOGS.glob(name), key=lambda path: path.stat().st_mtime_ns)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def last(version: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(Path(f"checkpoints/version_{version}/last.ckpt"), weights_only=True)
    return content


@pytest.fixture(scope="module")
def iris_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mine.csv`, the irises, and a run of three epochs on them, tested."""
    root = tmp_path_factory.mktemp("iris")
    write_iris(root / "mine.csv")
    run_in(root, ["fit", *SMALL, "--trainer.max_epochs", "3"], ["test"])
    return root


@pytest.fixture
def trained(command: Command, iris_run: Path, tmp_path: Path) -> Command:
    """The command line in a folder of its own with a copy of that run."""
    shutil.copytree(iris_run, tmp_path, dirs_exist_ok=True)
    return command


def test_15_percent_of_the_rows_are_tested_and_compared_with_baselines(trained: Command) -> None:
    found = result()
    assert found["total"] == 22
    assert found["correct"] >= 18  # three epochs; a guess is right on 7
    frame = pandas.read_csv("mine.csv")
    values, labels = frame[list(IRIS_FEATURES)].to_numpy(), frame["species"].astype("category").cat.codes.to_numpy()
    train, _, test = stratified_split(labels.astype(np.int64), [0.15, 0.15], 0)
    scaler = StandardScaler().fit(values[train])
    logistic = LogisticRegression(max_iter=1000).fit(scaler.transform(values[train]), labels[train])
    majority = np.bincount(labels[train]).argmax()
    assert [(baseline["name"], baseline["correct"], baseline["training_rows"]) for baseline in found["baselines"]] == [
        ("the most frequent class", int((labels[test] == majority).sum()), 106),
        ("logistic regression", int((logistic.predict(scaler.transform(values[test])) == labels[test]).sum()), 106),
    ]


def test_test_writes_the_files_of_a_table_only(trained: Command) -> None:
    assert {path.name for path in (LOGS / "figures").iterdir()} == {
        "confusion_matrix.png", "learning_curves.png", "reliability_diagram.png"
    }  # fmt: skip
    assert "worst_images" not in result()
    species = [line.split(",")[-1] for line in Path("mine.csv").read_text().splitlines()]
    assert all(species[worst["row"] - 1] == worst["label"] for worst in result()["worst_rows"])
    page = (LOGS / "report.html").read_text()
    assert "The rows whose correct class has the lowest probability" in page
    assert "images" not in page
    tags = read_events(LOGS).Tags()
    assert {"Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val"} <= set(tags["scalars"])
    assert set(tags["images"]) == {
        "Validation/confusion matrix", "Test/confusion matrix", "Test/reliability diagram"
    }  # fmt: skip
    assert tags["graph"]


def test_a_checkpoint_contains_the_schema_and_loads_without_arguments(trained: Command) -> None:
    checkpoint = last()
    assert checkpoint["inputs"]["class_names"] == ("setosa", "versicolor", "virginica")
    assert [column["name"] for column in checkpoint["inputs"]["columns"]] == list(IRIS_FEATURES)
    assert checkpoint["hyper_parameters"]["in_features"] == 4
    classifier = TableClassifier.load_from_checkpoint(CHECKPOINTS / "best.ckpt").eval()
    data = TabularDataModule("mine.csv", "species")
    data.setup("test")
    ((rows, labels),) = data.test_dataloader()
    with torch.inference_mode():
        assert int((classifier(rows).argmax(dim=1) == labels).sum()) == result()["correct"]


def test_the_saved_config_trains_on_another_table(trained: Command) -> None:
    write_mixed(Path("other.csv"))
    saved = yaml.safe_load((LOGS / "config.yaml").read_text())
    assert saved["data"]["class_path"] == "mnist_lightning.TabularDataModule"
    assert {"in_features", "num_classes"}.isdisjoint(saved["model"])
    other = ("--data.csv_file", "other.csv", "--data.target", "kind")
    outcome = trained("fit", "--config", str(LOGS / "config.yaml"), *other)
    assert outcome.code == 0, outcome.err
    assert last(1)["hyper_parameters"]["in_features"] == 7
    assert trained("test").code == 0
    assert trained("test", "--ckpt_path", "version_0/best").code == 0


def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(trained: Command) -> None:
    assert trained("fit", *SMALL, "--trainer.max_epochs", "5").code == 0
    outcome = trained("fit", "--ckpt_path", "version_0/last", "--trainer.max_epochs", "5")
    assert outcome.code == 0, outcome.err
    ours, theirs = last(0), last(1)
    assert all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in theirs["state_dict"])
    assert ours["metrics"] == theirs["metrics"]
    assert ours["inputs"] == theirs["inputs"]


def test_a_run_is_not_resumed_with_a_table_that_changed(trained: Command) -> None:
    with Path("mine.csv").open("a") as file:
        file.write("5.1,3.5,1.4,0.2,setosa\n")
    for args in (("fit", "--ckpt_path", "last", "--trainer.max_epochs", "5"), ("test",)):
        outcome = trained(*args)
        assert outcome.code == 4
        assert "mine.csv has changed since" in outcome.err


def test_another_file_is_scored_whole(trained: Command) -> None:
    header, *lines = Path("mine.csv").read_text().splitlines(keepends=True)
    Path("other.csv").write_text("".join([header, *lines[:30], *lines[60:80]]))
    outcome = trained("test", "--data.csv_file", "other.csv")
    assert outcome.code == 0, outcome.err
    assert result("test_data_*.json")["total"] == 50
    assert result("test_data_*.json")["csv_file"] == "other.csv"
    assert result("test_data_*.json")["baselines"][1]["training_rows"] == 106
    Path("mine.csv").unlink()
    outcome = trained("test", "--data.csv_file", "other.csv")
    assert outcome.code == 0, outcome.err
    assert "no baselines: mine.csv was moved or changed since training" in outcome.out
    assert result("test_data_*.json")["baselines"] == []


def test_a_table_run_without_its_saved_config_needs_a_config(trained: Command) -> None:
    correct = result()["correct"]
    shutil.move(LOGS / "config.yaml", "saved.yaml")
    outcome = trained("test")
    assert outcome.code == 6
    assert "config.yaml is missing, and with it the options of the run; pass --config" in outcome.err
    assert trained("test", "--config", "saved.yaml").code == 0
    assert result()["correct"] == correct
    shutil.move(CHECKPOINTS / "best.ckpt", "mine.ckpt")
    assert trained("validate", "--ckpt_path", "mine.ckpt").code == 0


def test_predict_returns_the_networks_prediction_for_each_row(trained: Command) -> None:
    frame = pandas.read_csv("mine.csv")
    frame["note"] = "x"
    columns = ["note", *reversed(IRIS_FEATURES)]  # no target, another order, one column more
    frame[columns].to_csv("rows.csv", index=False)
    outcome = trained("predict", "rows.csv", "--output", "labels.csv")
    assert outcome.code == 0, outcome.err
    assert "150 rows labelled" in outcome.out
    with Path("labels.csv").open() as file:
        labels = list(csv.DictReader(file))
    assert list(labels[0]) == [
        "file", "row", "label", "probability", "second", "second_probability", "third", "third_probability", "unsure"
    ]  # fmt: skip
    assert [int(label["row"]) for label in labels] == list(range(2, 152))
    checkpoint = torch.load(CHECKPOINTS / "best.ckpt", weights_only=True)
    classifier = TableClassifier.load_from_checkpoint(CHECKPOINTS / "best.ckpt").eval()
    data = TabularDataModule("mine.csv", "species")
    data.setup("fit")
    with torch.inference_mode():
        logits = classifier(data.samples("train").inputs) / checkpoint["calibration"]["temperature"]
    probabilities, classes = logits.softmax(dim=1).max(dim=1)
    assert [label["label"] for label in labels] == [data.schema.class_names[place] for place in classes]
    assert [float(label["probability"]) for label in labels] == pytest.approx(probabilities.tolist(), abs=1e-6)
    threshold = checkpoint["calibration"]["unsure_below"]
    assert [label["unsure"] for label in labels] == [str(bool(p < threshold)).lower() for p in probabilities]


def test_with_two_classes_the_third_prediction_is_empty(command: Command) -> None:
    write_mixed(Path("mine.csv"))
    kind = ("--data", "TabularDataModule", "--data.csv_file", "mine.csv", "--data.target", "kind")
    assert command("fit", *kind, "--trainer.max_epochs", "1").code == 0
    assert command("predict", "mine.csv", "--output", "labels.json").code == 0
    labels = json.loads(Path("labels.json").read_text())
    assert {labels[0]["label"], labels[0]["second"]} == {"cat", "dog"}
    assert labels[0]["third"] is None


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["export"], 6, "was trained on a table"),
        (["demo"], 6, "was trained on a table"),
        (["predict", "digit.png"], 6, "was trained on a table"),
        (["predict", "mine.csv", "digit.png"], 2, "predict takes one .csv file at a time"),
        (["predict", "mine.csv", "--ink", "dark"], 2, "--ink and --save_inputs are for images"),
        (["predict", "text.csv"], 4, "text.csv, row 3, column petal_width: 'wide' is text"),
        (["predict", "narrow.csv"], 4, "has no column sepal_length; did you mean sepal_lenght?"),
        (["predict", "none.csv"], 4, "none.csv: no such CSV file"),
        (["test", "--data.csv_file", "class.csv"], 4, "class.csv, row 3, column species: 'rose' is not a class"),
        (["test", "--data.split_seed", "1"], 2, "rows that the network was trained on would be scored"),
        (["test", "--data.features", "[petal_width]"], 2, "data.features must be those"),
        (
            ["test", "--data", "MNISTDataModule"],
            2,
            "unknown option model.hidden in lightning_logs/version_0/config.yaml",
        ),
        (["fit", *TABLE, "--data.target", "specie"], 4, "mine.csv has no column specie; did you mean species?"),
        (["fit", *TABLE, "--data.features", "[petal]"], 4, "mine.csv has no column petal;"),
        (["fit", *TABLE, "--data.csv_file", ""], 2, "data.csv_file must name a table"),
        (["fit", *TABLE, "--model.hidden", "[0]"], 2, "hidden must be at least 1, got 0"),
        (["fit", *TABLE, "--model.fc_dropout", "0.1"], 2, "model.fc_dropout has no effect"),
        (["fit", *TABLE, "--data", "TabularDataModul"], 2, "TabularDataModul; did you mean TabularDataModule?"),
        (["fit", "--config", "kind.yaml"], 2, "data must contain options or name a class, got 3"),
    ],
)
def test_a_mistake_costs_a_line_and_has_its_exit_code(
    trained: Command, args: list[str], code: int, message: str
) -> None:
    Path("digit.png").write_bytes(b"")
    Path("kind.yaml").write_text("data: 3\n")
    rows = [(5, 3, 1, 1, "setosa"), (5, 3, 1, 1, "rose")]
    write_csv(Path("class.csv"), (*IRIS_FEATURES, "species"), rows)
    write_csv(Path("text.csv"), IRIS_FEATURES, [(5, 3, 1, 1), (5, 3, 1, "wide")])
    write_csv(Path("narrow.csv"), ("sepal_lenght", *IRIS_FEATURES[1:]), [(5, 3, 1, 1)])
    before = sorted(Path().rglob("[!e]*"))  # an event file may be begun
    outcome = trained(*args)
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert sorted(Path().rglob("[!e]*")) == before


def test_a_forged_checkpoint_cannot_allocate_more_memory_than_its_size(trained: Command) -> None:
    checkpoint = torch.load(CHECKPOINTS / "best.ckpt", weights_only=True)
    weights = checkpoint["state_dict"]
    for layer in (0, 1):  # a matrix between them would have 4 TB
        weights[f"network.layers.{layer}.bias"] = torch.zeros(10**6)
    torch.save(checkpoint, "forged.ckpt")
    outcome = trained("predict", "mine.csv", "--ckpt_path", "forged.ckpt")
    assert outcome.code == 6
    assert "is of another network" in outcome.err


def test_a_network_for_images_does_not_predict_a_table(fit: Command, command: Command) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    write_iris(Path("mine.csv"))
    outcome = command("predict", "mine.csv")
    assert outcome.code == 6
    assert "was not trained on a table" in outcome.err


@pytest.mark.parametrize(
    ("package", "message"),
    [("pandas", "reading a table needs pandas"), ("sklearn.linear_model", "no logistic regression")],
)
def test_a_missing_extra_is_named_in_a_line(
    trained: Command, monkeypatch: pytest.MonkeyPatch, package: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = trained("test")
    assert f"{message}" in outcome.out + outcome.err
    assert "pip install 'mnist-lightning[tabular]'" in outcome.out + outcome.err
    assert outcome.code == (2 if package == "pandas" else 0)


def test_a_csv_file_alone_selects_the_data_module_for_tables(command: Command) -> None:
    write_iris(Path("mine.csv"))
    outcome = command("fit", "--data.csv_file=mine.csv", "--data.target", "species", "--trainer.max_epochs", "1")
    assert outcome.code == 0, outcome.err
    saved = yaml.safe_load((LOGS / "config.yaml").read_text())
    assert saved["data"]["class_path"] == "mnist_lightning.TabularDataModule"


def test_help_shows_the_options_of_a_table(command: Command) -> None:
    out = command("fit", "--data", "TabularDataModule", "--help").out
    assert "--data.csv_file" in out
    assert "--model.hidden" in out
    assert "--data.val_size" not in out
    assert "--model.in_features" not in out


def test_weight_averaging_and_another_schedule_work_for_a_table_too(command: Command) -> None:
    write_mixed(Path("mine.csv"))
    kind = ("--data", "TabularDataModule", "--data.csv_file", "mine.csv", "--data.target", "kind")
    options = ("--model.ema_decay", "0.9", "--model.lr_scheduler", "cosine", "--model.optimizer", "muon")
    outcome = command("fit", *kind, *options, "--trainer.max_epochs", "2", "--test_after_fit", "true")
    assert outcome.code == 0, outcome.err
    assert result()["total"] == 6
