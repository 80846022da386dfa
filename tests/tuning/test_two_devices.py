"""`repeat` and `sweep` on two devices: one line each, one file, and the processes of a trial end together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mnist_lightning.data.mnist import idx
from tests.conftest import make_digits
from tests.tuning.conftest import rows

pytestmark = pytest.mark.slow

VAL_SIZE = 600  # two batches, one for each device


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own IDX files with enough images for two devices."""
    data_dir = tmp_path_factory.mktemp("two")
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count, seed in (("train", 1000, 0), ("t10k", 600, 1)):
        images, labels = make_digits(count, seed)
        idx.write(raw / f"{prefix}-images-idx3-ubyte", images)
        idx.write(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return data_dir


def run(folder: Path, *args: str) -> str:
    """Run a command in a process of its own, as Lightning starts others from it; return its output."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mnist_lightning", *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_repeat_prints_and_writes_once(data_dir: Path, tmp_path: Path) -> None:
    options = ("--data.data_dir", str(data_dir), "--data.val_size", str(VAL_SIZE), "--trainer.max_epochs", "1")
    devices = ("--trainer.devices", "2", "--trainer.accelerator", "cpu", "--test_after_fit", "true")
    printed = run(tmp_path, "repeat", "--runs", "2", *options, *devices).splitlines()
    for line in ("run 1 of 2", "run 2 of 2", "version_0: seed 0", "version_1: seed 1", "val_acc: ", "written to "):
        assert sum(each.startswith(line) for each in printed) == 1, line
    assert sum("on 2 processes" in each for each in printed) == 2
    assert len(list(tmp_path.rglob("repeat.json"))) == 1
    summary = json.loads((tmp_path / "lightning_logs/version_0/repeat.json").read_text())
    assert [result["seed"] for result in summary["runs"]] == [0, 1]
    assert summary["test_acc"]["n"] == 2


def test_the_trials_of_a_sweep_run_on_two_devices_and_are_pruned_on_both(data_dir: Path, tmp_path: Path) -> None:
    config = {
        "study": {"name": "two", "trials": 2, "metric": "val_loss"},
        "pruner": {"n_startup_trials": 1, "n_warmup_steps": 0},
        "fit": {
            "data.data_dir": str(data_dir),
            "data.val_size": VAL_SIZE,
            "trainer.max_epochs": 2,
            "trainer.devices": 2,
            "trainer.accelerator": "cpu",
        },
        "space": {"model.lr": {"low": 1e-8, "high": 1e-2, "log": True}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    printed = run(tmp_path, "sweep", "--config", "sweep.yaml")
    assert printed.count("trial 0 started") == printed.count("trial 1 started") == printed.count("best: ") == 1
    table = rows(tmp_path / "sweeps" / "two")
    assert [row["run"] for row in table] == ["version_0", "version_1"]
    validations = [int(row["validations"]) for row in table]
    worse = float(table[1]["val_loss"]) > float(table[0]["val_loss"])
    assert validations == [2, 1 if worse else 2]
    for trial in (0, 1):
        output = (tmp_path / f"sweeps/two/trials/{trial}.txt").read_text()
        assert output.count("on 2 processes") == 1
        assert ("stopped by ScoreReporter" in output) == (trial == 1 and worse)
