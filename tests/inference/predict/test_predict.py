import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning import Predictor
from mnist_lightning.inference.predict.output import ImageTable
from mnist_lightning.inference.prediction import ClassProbability, Prediction
from tests.conftest import Command
from tests.inference.conftest import TrainedRun
from tests.inference.digits.drawn import mnist_images, mnist_labels, on_paper

DIGITS = mnist_images(3)
COLUMNS = ["file", "label", "probability", "second", "second_probability", "third", "third_probability", "unsure"]


@pytest.fixture
def photos(command: Command, trained_run: TrainedRun, tmp_path: Path) -> Path:
    """A folder with three images, in a folder that contains a run."""
    (tmp_path / "checkpoints").symlink_to(trained_run.root / "checkpoints")
    (tmp_path / "lightning_logs").symlink_to(trained_run.root / "lightning_logs")
    (tmp_path / "photos").mkdir()
    for name, digit in zip(("a.png", "b.jpg", "c.tif"), DIGITS, strict=True):
        page = on_paper(digit)
        Image.fromarray(255 - page if name == "c.tif" else page).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_each_image_gets_a_line_with_its_three_classes_and_its_ink(command: Command, photos: Path) -> None:
    outcome = command("predict", "photos", "--unsure_below", "0")
    assert (outcome.code, outcome.err) == (0, "")
    network, heads, *lines, summary = outcome.out.splitlines()
    assert network.startswith("network: checkpoints/version_0/best.ckpt, epoch ")
    assert heads.split() == ["file", "label", "then", "ink"]
    predictor = Predictor.from_run()
    for name, ink, line in zip(("a.png", "b.jpg", "c.tif"), ("dark", "dark", "light"), lines, strict=True):
        prediction = predictor(photos / name)
        classes = [text for label, probability in prediction.top3 for text in (label, f"{probability:.2%}")]
        assert line.split() == [f"photos/{name}", *classes, ink]
    assert summary == "3 labelled, 0 of them unsure; 0 failed"


def test_predictions_below_the_threshold_are_marked(command: Command, photos: Path) -> None:
    outcome = command("predict", "photos/a.png", "photos/b.jpg", "--unsure_below", "1")
    assert outcome.code == 0
    assert [line.split()[-1] for line in outcome.out.splitlines()[2:4]] == ["unsure", "unsure"]
    assert outcome.out.splitlines()[-1] == "2 labelled, 2 of them unsure; 0 failed"


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_the_output_file_contains_the_predictions_of_the_predictor(command: Command, photos: Path, suffix: str) -> None:
    assert command("predict", "photos", "--output", f"labels.{suffix}", "--unsure_below", "0.5").code == 0
    text = Path(f"labels.{suffix}").read_text()
    rows = json.loads(text) if suffix == "json" else list(csv.DictReader(text.splitlines()))
    predictor = Predictor.from_run(unsure_below=0.5)
    assert len(rows) == 3
    for row, name in zip(rows, ("a.png", "b.jpg", "c.tif"), strict=True):
        assert list(row) == COLUMNS
        prediction = predictor(photos / name)
        assert row["file"] == f"photos/{name}"
        assert [row["label"], row["second"], row["third"]] == [label for label, _ in prediction.top3]
        probabilities = [float(row[key]) for key in ("probability", "second_probability", "third_probability")]
        assert probabilities == pytest.approx([probability for _, probability in prediction.top3], abs=1e-6)
        assert row["unsure"] == (prediction.unsure if suffix == "json" else str(prediction.unsure).lower())


def test_an_unreadable_image_is_reported_and_the_others_are_labelled(command: Command, photos: Path) -> None:
    (photos / "bad.png").write_text("not an image")
    Image.new("L", (99, 99), 255).save(photos / "blank.png")
    (photos / "empty").mkdir()
    outcome = command("predict", "photos", "none.png", "photos/empty", "--output", "labels.csv")
    assert outcome.code == 1
    errors = outcome.err.splitlines()
    assert len(errors) == 4
    assert errors[0].startswith("error: photos/empty: the folder contains no images")
    assert errors[1].startswith("error: photos/bad.png: not a PNG")
    assert errors[2] == "error: photos/blank.png: no digit found"
    assert errors[3] == "error: none.png: no such file or folder"
    assert "3 labelled" in outcome.out
    assert "4 failed" in outcome.out
    assert len(Path("labels.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("path", ["none.png", "empty"])
def test_if_no_image_can_be_labelled_the_exit_code_is_4_and_an_earlier_file_is_kept(
    command: Command, photos: Path, path: str
) -> None:
    Path("empty").mkdir()
    Path("labels.csv").write_text("precious")
    outcome = command("predict", path, "--output", "labels.csv")
    assert outcome.code == 4
    assert outcome.err.count("\n") == 1
    assert Path("labels.csv").read_text() == "precious"
    assert outcome.out.splitlines()[-1] == "labels.csv is unchanged"


@pytest.mark.parametrize(
    ("probability", "shown"), [(0.5, "50.00%"), (0.99984, "99.98%"), (0.99996, "99.99%"), (1.0, "99.99%")]
)
def test_no_probability_is_rounded_to_certainty(probability: float, shown: str) -> None:
    top3 = (ClassProbability("7", probability), ClassProbability("1", 0.0), ClassProbability("2", 0.0))
    prediction = Prediction("7", probability, top3, unsure=False, index=7)
    assert ImageTable([Path("a.png")], "0123456789").line(Path("a.png"), prediction).split()[2] == shown


def test_contact_sheets_show_the_image_beside_the_input_of_the_network(command: Command, photos: Path) -> None:
    (photos / "more").mkdir()
    shutil.copy(photos / "a.png", photos / "more")
    assert command("predict", "photos", "--save_inputs", "seen/today").code == 0
    names = sorted(path.name for path in Path("seen/today").iterdir())
    assert names == ["a.png-2.input.png", "a.png.input.png", "b.jpg.input.png", "c.tif.input.png"]
    with Image.open("seen/today/a.png.input.png") as opened:
        sheet = np.asarray(opened.convert("L"))
    expected = Predictor.from_run()(photos / "a.png").input
    assert expected is not None
    np.testing.assert_array_equal(sheet[5::10, -275::10], expected.pixels)  # on the right, ten times enlarged
    # The contact sheets in a folder are not labelled.
    assert "4 labelled" in command("predict", "photos", "--save_inputs", "photos").out
    assert "4 labelled" in command("predict", "photos").out


def test_ink_can_be_passed(command: Command, photos: Path) -> None:
    zero = np.full((200, 200), 255, np.uint8)
    zero[40:160, 60:140] = 0
    zero[70:130, 85:115] = 255
    Image.fromarray(zero).save("zero.png")
    for args, ink in (((), "dark"), (("--ink", "dark"), "dark"), (("--ink", "light"), "light")):
        outcome = command("predict", "zero.png", *args, "--unsure_below", "0")
        assert outcome.out.splitlines()[2].split()[-1] == ink


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "error: the following arguments are required: IMAGE_OR_FOLDER"),
        (["x.png", "--ink", "black"], 2, "error: --ink must be one of auto, dark, light, got black"),
        (["x.png", "--unsure_below", "2"], 2, "error: --unsure_below: must be a number in [0, 1], got '2'"),
        (["x.png", "--unsure_below", "nan"], 2, "error: --unsure_below: must be a number in [0, 1], got 'nan'"),
        (["x.png", "--output", "labels.txt"], 2, "error: --output: must end in .csv or .json, got 'labels.txt'"),
        (["x.png", "--outptu", "x.csv"], 2, "error: unknown option --outptu; did you mean --output?"),
        (["x.png", "--output", "none/labels.csv"], 5, "error: cannot write none/labels.csv: "),
        (["x.png", "--output", "folder.csv"], 5, "error: cannot write folder.csv: "),
        (["x.png", "--save_inputs", "x.png"], 5, "error: cannot write into x.png: File exists"),
        (["x.png"], 6, "error: "),
    ],
)
def test_a_usage_error_is_one_line(command: Command, args: list[str], code: int, message: str) -> None:
    Path("folder.csv").mkdir()
    Image.fromarray(on_paper(DIGITS[0])).save("x.png")
    outcome = command("predict", *args)
    assert outcome.code == code
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert sorted(os.listdir()) == ["folder.csv", "x.png"]


def test_a_file_that_cannot_be_written_exits_5(command: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnist_lightning.atomic_write.replace_file", full)
    outcome = command("predict", "photos", "--output", "labels.csv")
    assert outcome.code == 5
    assert outcome.err == "error: cannot write labels.csv: No space left on device\n"


def test_help_ends_with_examples(command: Command) -> None:
    outcome = command("predict", "--help")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("  python -m mnist_lightning predict ")


def test_file_names_that_are_not_utf8_are_kept(command: Command, photos: Path) -> None:
    name = os.fsdecode(b"\xff\x1b[2J.png")
    (photos / "a.png").rename(photos / name)
    outcome = command("predict", f"photos/{name}", "--output", "labels.csv")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert b"photos/\xff\x1b[2J.png" in Path("labels.csv").read_bytes()


@pytest.mark.slow
def test_predict_does_not_import_lightning(photos: Path) -> None:
    script = (
        "import sys\n"
        "from mnist_lightning.inference.predict.command import main\n"
        "main(['photos', '--output', 'labels.csv', '--save_inputs', 'seen'])\n"
        "print('MODULES', *sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    modules = set(out.rpartition("MODULES")[2].split())
    assert "torch" in modules
    assert not modules & {"lightning", "pytorch_lightning", "torchvision", "torchmetrics", "matplotlib"}


@pytest.mark.slow
def test_a_network_trained_on_mnist_labels_images_of_unseen_digits(command: Command, tmp_path: Path) -> None:
    fast = Path(__file__).parents[3] / "configs" / "fast.yaml"
    trained = command(
        "fit", "--config", str(fast), "--data.source", "bundled", "--trainer.limit_train_batches", "300",
        "--test_after_fit", "false",
    )  # fmt: skip
    assert trained.code == 0
    Path("photos").mkdir()
    for number, digit in enumerate(mnist_images(100, file=2)):
        Image.fromarray(on_paper(digit)).save(f"photos/{number:03}.png")
    assert command("predict", "photos", "--ckpt_path", "last", "--output", "labels.json").code == 0
    labels = [int(row["label"]) for row in json.loads(Path("labels.json").read_text())]
    # Its accuracy on plain validation images is about 97 %.
    assert sum(np.array(labels) == mnist_labels(100, file=3)) >= 90
