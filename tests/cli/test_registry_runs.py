"""The variants of MNIST with every command: other numbers of classes, and class names that are not digits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mnist_lightning import Classifier, MNISTDataModule, Predictor
from mnist_lightning.data.mnist.registry import DATASETS, DatasetName
from mnist_lightning.errors import ConfigError
from mnist_lightning.inference.demo.command import make_server
from tests.conftest import Command, Outcome, run_in
from tests.data.mnist.published import FORMATS, TEST_COUNT, make_split, write_dataset

pytestmark = pytest.mark.usefixtures("undrawn")

CLASSES: dict[DatasetName, int] = {
    "fashion_mnist": 10,
    "emnist_letters": 26,
    "emnist_balanced": 47,
    "emnist_byclass": 62,
}

Train = Callable[..., Outcome]


@pytest.fixture
def train(command: Command, tmp_path: Path) -> Train:
    """Train on the small files of a data set: some 20 steps, after which most images are classified correctly."""

    def run(dataset: DatasetName, *args: str) -> Outcome:
        write_dataset(tmp_path / "data", dataset)
        small = ("--data.val_size", "62", "--data.batch_size", "32", "--trainer.max_epochs", "3")
        return command("fit", "--data.dataset", dataset, *small, "--tensorboard.figures", "none", *args)

    return run


@pytest.fixture(scope="module")
def fashion_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch on the small files of Fashion-MNIST."""
    root = tmp_path_factory.mktemp("fashion")
    write_dataset(root / "data", "fashion_mnist")
    small = ("--data.val_size", "62", "--data.batch_size", "32", "--trainer.max_epochs", "1")
    run_in(root, ["fit", "--data.dataset", "fashion_mnist", *small, "--tensorboard.figures", "none"])
    return root


@pytest.mark.parametrize(
    "dataset",
    [
        "fashion_mnist",
        "emnist_letters",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("emnist_balanced", "emnist_byclass")),
    ],
)
def test_every_command_works_with_the_classes_of_the_data_set(
    dataset: DatasetName, train: Train, command: Command, tmp_path: Path
) -> None:
    names, classes = DATASETS[dataset].class_names, CLASSES[dataset]
    assert train(dataset, "--test_after_fit", "true").code == 0

    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert [score["name"] for score in result["classes"]] == list(names)
    assert np.array(result["confusion"]).shape == (classes, classes)
    assert result["total"] == TEST_COUNT
    assert result["accuracy"] > 5 / classes, "it has learned something"

    images, labels = make_split(TEST_COUNT, classes, seed=1)
    predictor = Predictor.from_run()
    right = sum(
        made.label == names[label] for made, label in zip(predictor.predict_pixels(images), labels, strict=True)
    )
    assert right == result["correct"]

    stroke = np.zeros((60, 60), np.uint8)
    stroke[10:50, 28:33] = 255
    Image.fromarray(stroke).save("stroke.png")
    predicted = command("predict", "stroke.png", "--output", "labels.csv")
    assert predicted.code == 0, predicted.err
    assert "were not made in the way in which images are preprocessed" in predicted.out
    assert Path("labels.csv").read_text().splitlines()[1].split(",")[1] in names

    with make_server(predictor.trained, "127.0.0.1", 0) as server:
        assert json.loads(server.pages["/network"][0])["class_names"] == list(names)
        drawing = np.kron(stroke, np.ones((5, 5), np.uint8))[:280, :280]
        assert len(json.loads(server.predict(drawing.tobytes()))["probabilities"]) == classes

    exported = command("export", "--format", "pt2")
    assert exported.code == 0, exported.err
    assert f"{TEST_COUNT} images of data/{FORMATS[dataset][0]}/raw/{FORMATS[dataset][1][2]}" in exported.out
    network = torch.export.load(tmp_path / "checkpoints" / "version_0" / "best.pt2").module()
    logits, _ = network(torch.from_numpy(images))
    assert int((logits.argmax(dim=1).numpy() == labels).sum()) == result["correct"], "on images that are upright"


def test_safetensors_have_as_many_outputs_as_classes(train: Train, command: Command) -> None:
    assert train("emnist_letters").code == 0
    assert command("export", "--format", "safetensors").code == 0


def test_config_and_checkpoint_name_the_data_set(train: Train, command: Command, tmp_path: Path) -> None:
    assert train("emnist_letters").code == 0
    config = yaml.safe_load((tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text())
    assert config["data"]["dataset"] == "emnist_letters"
    assert "num_classes" not in config["model"], "it is the data set's"
    path = tmp_path / "checkpoints" / "version_0" / "last.ckpt"
    classifier = Classifier.load_from_checkpoint(path, weights_only=True)
    assert classifier(torch.zeros(1, 1, 28, 28)).shape == (1, 26)

    # Neither the config nor the training file is needed to score it as it was trained.
    (tmp_path / "lightning_logs" / "version_0" / "config.yaml").unlink()
    before = command("test").out
    folder = write_dataset(tmp_path / "data", "emnist_letters")
    images = folder / "emnist-letters-train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:16] + bytes([200]) * (len(images.read_bytes()) - 16))
    assert command("test").out == before


def test_a_run_is_resumed_with_its_data_set(train: Train, command: Command) -> None:
    assert train("emnist_letters").code == 0
    outcome = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "4")
    assert outcome.code == 0, outcome.err
    assert "epoch  3" in outcome.out


@pytest.mark.parametrize("other", ["kmnist", "emnist_balanced"])
@pytest.mark.parametrize(
    "args", [("test",), ("validate",), ("fit", "--ckpt_path", "last", "--trainer.max_epochs", "9")]
)
def test_a_checkpoint_of_another_data_set_is_refused(
    fashion_run: Path, command: Command, tmp_path: Path, other: DatasetName, args: tuple[str, ...]
) -> None:
    shutil.copytree(fashion_run, tmp_path, dirs_exist_ok=True)
    result = command(*args, "--data.dataset", other)
    assert result.code == 6
    assert result.err.startswith("error: checkpoints/version_0/")
    assert result.err.endswith(
        f"was trained on fashion_mnist, but data.dataset is {other}; pass a checkpoint of that data set\n"
    )
    assert not result.out


def test_a_network_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer

    write_dataset(tmp_path, "emnist_letters")
    trainer = Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"model.num_classes is 10, but the data has 26 classes"):
        trainer.test(Classifier(), MNISTDataModule(str(tmp_path), dataset="emnist_letters", source="files"))


def test_a_mistake_in_the_data_set_costs_a_line(command: Command) -> None:
    outcome = command("fit", "--data.dataset", "kmnist", "--data.source", "bundled")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no bundled copy of KMNIST" in outcome.err
    outcome = command("fit", "--data.dataset", "nist")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith("error: data.dataset must be ['mnist', 'fashion_mnist',")
    assert command("fit", "--model.num_classes", "7").code == 2
