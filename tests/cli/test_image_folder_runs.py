"""Folders of images on the command line: train, test, resume, predict, export, and mistakes."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image

from mnist_lightning import Classifier, PictureFolderDataModule, Predictor
from tests.conftest import Command, run_in
from tests.data.image_folder.small_images import write_image, write_shapes
from tests.training.conftest import read_events

pytestmark = pytest.mark.usefixtures("undrawn")  # except for the run that they share

SMALL = (
    "--data.folder", "shapes", "--data.size", "16", "--data.batch_size", "16", "--data.flip", "0.5",
    "--model.lr", "0.003",
)  # fmt: skip
LOGS, CHECKPOINTS = Path("lightning_logs/version_0"), Path("checkpoints/version_0")


def result(name: str = "test.json") -> dict[str, Any]:
    """Return the newest result of this name."""
    path = max(LOGS.glob(name), key=lambda path: path.stat().st_mtime_ns)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def last(version: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(Path(f"checkpoints/version_{version}/last.ckpt"), weights_only=True)
    return content


@pytest.fixture(scope="module")
def shapes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shapes`, 40 images of each of three classes, and a tested run of six epochs on them."""
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root / "shapes", 40)
    run_in(root, ["fit", *SMALL, "--trainer.max_epochs", "6"], ["test"])
    return root


@pytest.fixture
def trained(command: Command, shapes_run: Path, tmp_path: Path) -> Command:
    """The command line in a folder with a copy of that run."""
    shutil.copytree(shapes_run, tmp_path, dirs_exist_ok=True)
    return command


def test_shapes_are_learned_and_15_percent_are_tested(trained: Command) -> None:
    found = result()
    assert found["total"] == 18
    assert found["correct"] >= 12  # a guess is right on 6
    assert [score["name"] for score in found["classes"]] == ["circle", "square", "triangle"]
    saved = yaml.safe_load((LOGS / "config.yaml").read_text())
    assert saved["data"]["class_path"] == "mnist_lightning.PictureFolderDataModule"
    assert {"Test/worst images", "Training images"} <= set(read_events(LOGS).Tags()["images"])
    with Image.open(LOGS / "figures" / "worst_images.png") as sheet:
        assert sheet.mode == "RGB"


def test_a_checkpoint_loads_without_arguments_and_scores_as_test_did(trained: Command) -> None:
    classifier = Classifier.load_from_checkpoint(CHECKPOINTS / "best.ckpt").eval()
    data = PictureFolderDataModule("shapes", size=16)
    data.restore(last()["inputs"])
    data.prepare_data()
    data.setup("test")
    ((images, labels),) = data.test_dataloader()
    assert images.shape == (18, 3, 16, 16)
    with torch.inference_mode():
        assert int((classifier(images).argmax(dim=1) == labels).sum()) == result()["correct"]


def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(trained: Command) -> None:
    assert trained("fit", *SMALL, "--trainer.max_epochs", "8").code == 0
    outcome = trained("fit", "--ckpt_path", "version_0/last", "--trainer.max_epochs", "8")
    assert outcome.code == 0, outcome.err
    ours, theirs = last(0), last(1)
    assert all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in theirs["state_dict"])
    assert ours["metrics"] == theirs["metrics"]


def test_predict_and_test_preprocess_images_alike(trained: Command) -> None:
    rows = rows_of(LOGS / "predictions.csv")
    held = rows_of(next(Path("data/pictures").glob("*/pictures.csv")))
    files = {str(Path("shapes", held[int(row["index"])]["file"])): int(row["prediction"]) for row in rows}
    outcome = trained("predict", *files, "--output", "labels.csv", "--save_inputs", "seen")
    assert outcome.code == 0, outcome.err
    labelled = rows_of(Path("labels.csv"))
    names = ("circle", "square", "triangle")
    assert {row["file"]: names.index(row["label"]) for row in labelled} == files
    assert len(list(Path("seen").iterdir())) == len(files)
    predictor = Predictor.from_run()
    first = labelled[0]
    picture = Image.open(first["file"])
    for given in (Path(first["file"]), picture, np.asarray(picture)):
        assert predictor(given).label == first["label"]
        assert predictor(given).probability == pytest.approx(float(first["probability"]), abs=1e-6)


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--data.size", "17", "--data.colour", "false"), marks=pytest.mark.slow)]
)
def test_an_exported_network_takes_pixels_of_its_own_size_and_colours(
    trained: Command, options: tuple[str, ...]
) -> None:
    if options:
        assert trained("fit", *SMALL, *options, "--trainer.max_epochs", "1").code == 0
    for form in ("onnx",) if options else ("onnx", "pt2", "safetensors"):
        outcome = trained("export", "--format", form, "--output", f"shapes.{form}")
        assert outcome.code == 0, outcome.err
        assert "120 images of shapes" in outcome.out
    shape = (2, 17, 17) if options else (2, 16, 16, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    _, probabilities = onnxruntime.InferenceSession("shapes.onnx").run(None, {"images": pixels})
    expected = [prediction.probability for prediction in Predictor.from_run().predict_pixels(pixels)]
    np.testing.assert_allclose(probabilities.max(axis=1), expected, atol=1e-5)


def test_an_export_is_compared_on_random_pixels_if_the_images_are_gone(trained: Command) -> None:
    shutil.rmtree("shapes")
    outcome = trained("export", "--format", "safetensors")
    assert outcome.code == 0, outcome.err
    assert "100 images of random pixels, because shapes no longer exists" in outcome.out


def test_a_forged_checkpoint_cannot_control_the_terminal(trained: Command) -> None:
    forged, origin = last(), last()["inputs"]["origin"]
    forged["inputs"] |= {"class_names": ("a\x1b[2J", "b\r", "c\n"), "origin": origin | {"path": "\x1b[2J" * 2000}}
    torch.save(forged, "forged.ckpt")
    for args in (["predict", "shapes/circle"], ["export", "--format", "safetensors", "--output", "x.safetensors"]):
        outcome = trained(*args, "--ckpt_path", "forged.ckpt")
        assert outcome.code == 0, outcome.err
        assert r"\x1b[2J" in outcome.out
        assert outcome.out.replace("\n", "").isprintable()


def test_another_folder_is_scored_whole_or_only_its_folder_test(trained: Command) -> None:
    write_shapes(Path("other"), 4, seed=1)
    write_shapes(Path("more/test"), 5, seed=2)
    write_shapes(Path("more/train"), 3, seed=3)
    for folder, count in (("other", 12), ("more", 15)):
        outcome = trained("test", "--data.folder", folder)
        assert outcome.code == 0, outcome.err
        assert result("test_data_*.json")["total"] == count


def test_the_same_images_in_another_place_have_the_same_split(trained: Command) -> None:
    before = result()
    Path("shapes").rename("moved")
    outcome = trained("test", "--data.folder", "moved")
    assert outcome.code == 0, outcome.err
    assert result()["total"] == before["total"]
    assert result()["loss"] == before["loss"]


def test_two_classes_are_enough(command: Command) -> None:
    write_shapes(Path("shapes"), 12)
    shutil.rmtree("shapes/circle")
    outcome = command("fit", *SMALL, "--trainer.max_epochs", "1", "--test_after_fit", "true")
    assert outcome.code == 0, outcome.err
    assert command("predict", "shapes/square", "--output", "labels.json").code == 0
    labels = json.loads(Path("labels.json").read_text())
    assert {labels[0]["label"], labels[0]["second"]} == {"square", "triangle"}
    assert labels[0]["third"] is None


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["demo"], 6, "was trained on folders of images"),
        (["predict", "mine.csv"], 6, "was not trained on a table"),
        (["predict", "shapes/circle/0.png", "--ink", "dark"], 2, "--ink is for images of digits"),
        (["test", "--data.split_seed", "1"], 2, "data.split_seed must be that of the training, 0"),
        (["test", "--data.size", "28"], 2, "data.size and data.colour must be those that the network was trained with"),
        (["test", "--data.folder", "none"], 4, "none cannot be read: No such file"),
        (["test", "--data.folder", "other"], 4, "other/oval: oval is not a class of this network: circle, square, "),
        (["test", "--data.folder", "parts"], 4, "parts holds train, but no folder test"),
        (
            ["validate", "--data", "MNISTDataModule"],
            2,
            "unknown option data.folder in lightning_logs/version_0/config.yaml",
        ),
        (["fit", "--data.folder", ""], 2, "data.folder must name a folder of images"),
        (["export", "--data.data_dir", "data"], 2, "--data.data_dir is for MNIST and its variants"),
        (["fit", "--data", "PictureFolderDataModule"], 2, "data.folder must name a folder of images"),
        (["fit", *SMALL, "--model.num_classes", "3"], 2, "model.num_classes"),
        (["fit", *SMALL, "--data.flip", "1"], 2, "data.flip must be in [0, 1)"),
    ],
)
def test_a_mistake_costs_a_line_and_has_its_exit_code(
    trained: Command, args: list[str], code: int, message: str
) -> None:
    write_image(Path("other/oval/0.png"), 0)
    write_image(Path("other/circle/0.png"), 1)
    for name in ("circle", "square"):
        write_image(Path("parts/train", name, "0.png"), 0)
    Path("mine.csv").write_text("a\n1\n")
    before = sorted(Path("checkpoints").rglob("*"))
    outcome = trained(*args)
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert sorted(Path("checkpoints").rglob("*")) == before


def test_a_folder_that_changed_is_neither_scored_nor_resumed(trained: Command) -> None:
    write_image(Path("shapes/circle/new.png"), 0)
    tested = trained("test")
    assert tested.code == 4
    assert "shapes has changed since the network was trained on it, so its test images are not known" in tested.err
    resumed = trained("fit", "--ckpt_path", "last", "--trainer.max_epochs", "9")
    assert resumed.code == 4
    assert "shapes has changed since the run began" in resumed.err
    Path("shapes/circle/new.png").unlink()
    assert trained("test").code == 0


def test_unreadable_images_end_fit_before_the_first_step(trained: Command) -> None:
    Path("shapes/circle/bad.png").write_bytes(b"")
    outcome = trained("fit", *SMALL)
    assert outcome.code == 4
    assert outcome.err.splitlines() == [
        "error: 1 of 121 images cannot be read; replace or remove them", "shapes/circle/bad.png: the file is empty"
    ]  # fmt: skip
    assert not Path("lightning_logs/version_1").exists()


def test_help_shows_the_options_of_image_folders(command: Command) -> None:
    out = command("fit", "--data", "PictureFolderDataModule", "--help").out
    assert "--data.folder" in out
    assert "--data.dataset" not in out
    assert "--model.image_size" not in out
    assert "--model.in_channels" not in out


def test_a_network_trained_on_mnist_is_not_tested_on_a_folder(fit: Command, command: Command) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    write_shapes(Path("shapes"), 12)
    outcome = command("test", "--data", "PictureFolderDataModule", "--data.folder", "shapes")
    assert outcome.code == 2
    assert "unknown option data.val_size in lightning_logs/version_0/config.yaml" in outcome.err
    outcome = command("test", "--data.folder", "shapes")
    assert outcome.code == 2
    assert "unknown option --data.folder" in outcome.err
