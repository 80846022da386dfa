"""The files that `test` writes: no other result replaces that of the best checkpoint, and each names its subject."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning.data.mnist import idx
from tests.conftest import make_digits, run_in
from tests.training.conftest import read_events

LOGS, CHECKPOINTS = Path("lightning_logs/version_0"), Path("checkpoints/version_0")
RESULT_FILES = ("test{}.json", "predictions{}.csv", "predictions{}.json", "report{}.html", "figures{}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> Path:
    """A folder with a run that is trained and tested, a copy of its data, and data with other test images."""
    root = tmp_path_factory.mktemp("results")
    other = root / "other"
    shutil.copytree(digits_dir, other)
    images, labels = make_digits(40, seed=5)
    idx.write(other / "MNIST" / "raw" / "t10k-images-idx3-ubyte", images)
    idx.write(other / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", labels)
    shutil.copytree(digits_dir, root / "copy")
    fit = ("fit", "--data.data_dir", str(digits_dir), "--data.batch_size", "100", "--data.val_size", "60")
    run_in(root, [*fit, "--trainer.max_epochs", "2"], ["test"])
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")  # other figures than those of the result
def test_no_other_checkpoint_and_no_other_data_replace_the_result(root: Path, digits_dir: Path) -> None:
    before = _content(root)
    epoch = next(path.stem for path in (root / CHECKPOINTS).glob("epoch=00*"))
    for args, suffix in (
        (["--ckpt_path", "last"], "_last"),
        (["--ckpt_path", f"{CHECKPOINTS}/{epoch}.ckpt"], f"_{epoch}"),
    ):
        run_in(root, ["test", *args])
        assert _results(root) >= {name.format(suffix) for name in RESULT_FILES}
        assert before.items() <= _content(root).items()
    for args in (["--data.data_dir", "other"], ["--ckpt_path", "last", "--data.data_dir", "other"]):
        run_in(root, ["test", *args])
        assert before.items() <= _content(root).items()
    on_other = sorted(path for path in (root / LOGS).glob("test*_data_*.json"))
    assert [_read(path)["total"] for path in on_other] == [40, 40]
    assert [_read(path)["kind"] for path in on_other] == ["best", "last"]
    run_in(root, ["test"], ["test", "--data.data_dir", "copy"], ["test", "--data.data_dir", str(digits_dir)])
    assert len(_results(root)) == 5 * len(RESULT_FILES), "the same samples elsewhere are the run's own"


def test_each_result_names_checkpoint_and_data_with_their_digests(root: Path) -> None:
    for path in (root / LOGS).glob("test*.json"):
        result, table = _read(path), path.with_name(path.name.replace("test", "predictions")).with_suffix(".csv")
        sidecar = _read(table.with_suffix(".json"))
        assert sidecar.pop("sha256") == _sha256(table)
        assert {key: result[key] for key in sidecar} == sidecar
        assert result["checkpoint_sha256"] == _sha256(root / result["checkpoint"])
        assert len(result["data"]) == 2
        for file, digest in result["data"].items():
            assert "t10k" in file
            assert _sha256(root / file) == digest
        assert len(table.read_text().splitlines()) == result["total"] + 1
        report = path.with_name(path.name.replace("test", "report")).with_suffix(".html")
        assert result["checkpoint_sha256"] in report.read_text()


def test_tensorboard_keeps_the_results_apart(root: Path) -> None:
    events: EventAccumulator = read_events(root / LOGS)
    for path in (root / LOGS).glob("test*.json"):
        result, suffix = _read(path), path.stem.removeprefix("test")
        points = events.Scalars(f"Accuracy/test{suffix}")
        assert {(point.step, point.value) for point in points} == {(result["epoch"], np.float32(result["accuracy"]))}
        assert events.Images(f"Test{suffix}/confusion matrix")


def _content(root: Path) -> dict[str, bytes]:
    """Return the result of the best checkpoint on the run's own data, by file."""
    names = [name.format("") for name in RESULT_FILES]
    files = [path for name in names for path in [root / LOGS / name, *(root / LOGS / name).glob("*")] if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


def _results(root: Path) -> set[str]:
    return {
        path.name for path in (root / LOGS).iterdir() if path.name.startswith(("test", "predictions", "rep", "fig"))
    }


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
