"""The commands on the real MNIST, without a network; most of them in new processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Command

DEFAULT = Path(__file__).parents[2] / "configs" / "default.yaml"


def run(folder: Path, *args: str, code: int = 0) -> str:
    """Run a command in a new process; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "mnist_lightning", *args],
        cwd=folder, capture_output=True, text=True, timeout=2700, check=False,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},  # as a person would
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    assert "Tip:" not in done.stdout + done.stderr
    return done.stdout


def test_a_short_training_on_mnist_passes_the_labs_threshold(command: Command, tmp_path: Path) -> None:
    trained = command(
        "fit", "--config", str(DEFAULT), "--data.source", "bundled", "--test_after_fit", "true",
        "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "150",
        "--data.val_size", "1000", "--data.batch_size", "48", "--model.lr", "0.002",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert "cpu" in trained.out or "cuda" in trained.out or "mps" in trained.out
    assert "10000 = " in trained.out
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["total"] == 10_000
    assert result["accuracy"] > 0.95  # the lab's passing mark; these 150 steps reach about 96 %


@pytest.mark.slow
def test_the_default_config_reaches_99_percent_in_12_epochs(tmp_path: Path) -> None:
    run(tmp_path, "fit", "--config", str(DEFAULT), "--data.source", "bundled", "--trainer.max_epochs", "12")
    run(tmp_path, "test")
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["interval"][1] >= 0.99  # five seeds that ended after 9 to 14 epochs reached 99.2 ± 0.1 %


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    project = (DEFAULT.parents[1] / "pyproject.toml").read_text()
    version = run(tmp_path, "--version").split()[1]
    assert f'version = "{version}"' in project


def test_a_process_ends_without_a_last_garbage_collection() -> None:
    script = """
import atexit, gc, sys
from mnist_lightning.__main__ import main
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # called after what is registered later
sys.argv = ["mnist-lightning", "--version"]
main()
"""
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert out.splitlines()[-1] == "True"
