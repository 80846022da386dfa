import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from mnist_lightning.evaluation.predictions import PREDICTIONS
from mnist_lightning.training.logger import read_curves
from tests.conftest import TEST_COUNT, Command
from tests.evaluation.test_report import FIGURES, SCRIPT, Reader, assert_inert
from tests.training.conftest import EPOCHS, FinishedRun, read_events


@pytest.fixture
def text(finished_run: FinishedRun) -> str:
    return (finished_run.logs / "report.html").read_text()


def test_the_page_contains_every_figure_of_the_folder(text: str, finished_run: FinishedRun) -> None:
    reader = assert_inert(text)
    files = {path.read_bytes() for path in (finished_run.logs / "figures").iterdir()}
    assert len(files) == len(FIGURES)
    assert set(reader.images) == files


def test_the_page_states_the_result_the_config_and_the_curves(text: str, finished_run: FinishedRun) -> None:
    result = json.loads((finished_run.logs / "test.json").read_text())
    words = " ".join(Reader(text).words)
    assert f"accuracy {result['correct']}/{TEST_COUNT}" in words
    assert (finished_run.logs / "config.yaml").read_text() in words
    for pair in result["most_confused"]:
        assert f"{pair['label']} {pair['prediction']} {pair['count']}" in words
    curves = read_curves(finished_run.logs)
    for tag in ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val"):
        assert len(curves[tag]) == EPOCHS
        assert all(f"{value:.5g}" in words for _, value in curves[tag])


def test_figures_are_the_same_in_the_folder_and_in_tensorboard(
    finished_run: FinishedRun, events: EventAccumulator
) -> None:
    result = json.loads((finished_run.logs / "test.json").read_text())
    for name in set(FIGURES) - {"learning curves"}:
        (drawn,) = events.Images(f"Test/{name}")
        file = finished_run.logs / "figures" / f"{name.replace(' ', '_')}.png"
        with Image.open(io.BytesIO(drawn.encoded_image_string)) as theirs, Image.open(file) as ours:
            assert np.array_equal(np.asarray(theirs), np.asarray(ours))
        assert drawn.step == result["epoch"]


def test_the_numbers_are_those_of_the_checkpoint_that_the_result_names(finished_run: FinishedRun) -> None:
    result = json.loads((finished_run.logs / "test.json").read_text())
    confusion = finished_run.confusion(Path(result["checkpoint"]).name, "test")
    assert result["confusion"] == confusion.tolist()
    assert result["correct"] == confusion.trace() < TEST_COUNT
    assert result["total"] == TEST_COUNT
    assert result["calibration"]["temperature"] is not None


@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
def test_a_run_whose_folders_are_named_like_markup_has_an_inert_page(
    fit: Command, command: Command, digits_dir: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "<img src=x onerror=alert(1)>"
    strange.symlink_to(digits_dir)
    assert fit("--trainer.max_epochs", "1", "--data.data_dir", str(strange)).code == 0
    outside = tmp_path / SCRIPT / "a.ckpt"
    outside.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "checkpoints" / "version_0" / "best.ckpt", outside)
    assert command("test").code == 0
    reader = assert_inert((tmp_path / "lightning_logs" / "version_0" / "report.html").read_text())
    assert strange.name in " ".join(" ".join(reader.words).split()), "the config's lines are folded"
    assert command("test", "--ckpt_path", str(outside), "--data.data_dir", str(strange)).code == 0
    reader = assert_inert((outside.parent / "report.html").read_text())
    assert any(SCRIPT in words for words in reader.words)


def test_a_corrupted_event_file_does_not_cost_the_result(fit: Command, command: Command, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "2").code == 0
    logs = tmp_path / "lightning_logs" / "version_0"
    (events,) = logs.glob("events.*")
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 255
    events.write_bytes(data[:-7])
    assert command("test").code == 0
    assert json.loads((logs / "test.json").read_text())["total"] == TEST_COUNT
    assert_inert((logs / "report.html").read_text())
    assert read_events(logs).Scalars("Accuracy/test")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("number", range(1, 7))
def test_a_full_disk_fails_loudly_and_leaves_whole_files(
    finished_run: FinishedRun, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shutil.copytree(finished_run.root, tmp_path, dirs_exist_ok=True)
    logs, checkpoints = (tmp_path / kind / "version_0" for kind in ("lightning_logs", "checkpoints"))
    before = {path: path.read_bytes() for path in checkpoints.iterdir()}
    names = sorted(path.relative_to(logs) for path in logs.rglob("*") if not path.name.startswith("events"))
    fsync, written = os.fsync, 0

    def fail(handle: int) -> None:
        nonlocal written
        written += os.path.isfile(f"/proc/self/fd/{handle}")
        if written == number:
            raise OSError(28, os.strerror(28))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    outcome = command("test")
    assert outcome.code == 5
    assert "No space left on device" in outcome.err
    assert {path: path.read_bytes() for path in checkpoints.iterdir()} == before
    assert sorted(path.relative_to(logs) for path in logs.rglob("*") if not path.name.startswith("events")) == names
    assert json.loads((logs / "test.json").read_text())["total"] == TEST_COUNT
    assert (logs / "report.html").read_text().endswith("</html>\n")
    for figure in (logs / "figures").iterdir():
        with Image.open(figure) as image:
            image.load()


def test_the_predictions_file_holds_the_predictions_of_the_network(finished_run: FinishedRun) -> None:
    with (finished_run.logs / PREDICTIONS.format("")).open() as file:
        rows = [[int(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    labels = finished_run.images_and_labels("test")[1].tolist()
    predictions = finished_run.logits("best.ckpt", "test").argmax(axis=1).tolist()
    assert rows == [[place, *both] for place, both in enumerate(zip(labels, predictions, strict=True))]


def test_the_curves_of_a_run_that_was_killed_and_resumed_are_read_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for first_epoch in (0, 1):  # the first was killed in epoch 1
        with SummaryWriter(str(tmp_path), purge_step=first_epoch, filename_suffix=f".{first_epoch}") as writer:
            for epoch in range(first_epoch, 2):
                writer.add_scalar("Loss/train", epoch + 10 * first_epoch, epoch)
    assert read_curves(tmp_path) == {"Loss/train": [(0, 0.0), (1, 11.0)]}
    assert not caplog.records
