"""Evaluation on several processes counts every image once: the same whole numbers as on one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.data.mnist import idx
from tests.conftest import TEST_COUNT, Command

SCRIPT = """
import sys
import mnist_lightning.data.image_schema
mnist_lightning.data.image_schema.EVAL_PIXELS = {eval_batch_size} * 28**2
from mnist_lightning.cli.main import main
main(sys.argv[1:])
"""


def run_on(processes: int, folder: Path, *, eval_batch_size: int) -> subprocess.CompletedProcess[str]:
    """Test the newest run on a number of processes."""
    (folder / "main.py").write_text(SCRIPT.format(eval_batch_size=eval_batch_size))
    return subprocess.run(
        [sys.executable, "main.py", "test", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp",
         "--trainer.devices", str(processes)],
        cwd=folder, capture_output=True, text=True, timeout=1200, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 12])  # the last of twelve has none of the 11 batches
def test_a_score_is_the_same_on_any_number_of_processes(
    fit: Command, command: Command, tmp_path: Path, digits_dir: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr("mnist_lightning.data.image_schema.EVAL_PIXELS", 10 * 28**2)
    data_dir = tmp_path / "digits"
    shutil.copytree(digits_dir, data_dir)
    labels = np.random.default_rng(0).integers(0, 10, TEST_COUNT, dtype=np.uint8)  # wrong, nine times in ten
    idx.write(data_dir / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", labels)
    assert fit("--trainer.max_epochs", "1", "--data.data_dir", str(data_dir)).code == 0
    assert command("test").code == 0
    path = tmp_path / "lightning_logs" / "version_0" / "test.json"
    single = json.loads(path.read_text())
    assert single["total"] == TEST_COUNT
    assert 0 < single["correct"] < TEST_COUNT

    done = run_on(processes, tmp_path, eval_batch_size=10)
    assert done.returncode == 0, done.stderr
    several = json.loads(path.read_text())
    assert (several["correct"], several["total"]) == (single["correct"], single["total"])
    assert several["loss"] == pytest.approx(single["loss"], rel=1e-5)  # float32 sums in another order
