import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import Command

# 2**-130 is below float32's smallest normal number, 2**-126. Enough of them that both threads have some.
SCRIPT = """
import sys
import torch
from lightning.pytorch import Callback
from mnist_lightning.cli.lightning_cli import TrainerCLI

def survivors():
    return int((torch.full((1 << 22,), 2.0**-130) * 1).count_nonzero())

class Look(Callback):
    def on_train_start(self, trainer, pl_module):
        print("survivors:", survivors(), "of", torch.get_num_threads(), "threads")

torch.set_num_threads(2)
TrainerCLI(sys.argv[1:], callbacks=[Look()])
"""


@pytest.mark.slow
def test_no_thread_of_a_training_computes_with_denormals(tmp_path: Path, digits_dir: Path) -> None:
    args = ["fit", "--data.data_dir", str(digits_dir), "--data.val_size", "60", "--trainer.max_steps", "1"]
    args += ["--trainer.default_root_dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, check=True)
    assert "survivors: 0 of 2 threads" in done.stdout


def test_what_calls_a_training_has_its_denormals_back(fit: Command) -> None:
    assert fit("--trainer.max_steps", "1").code == 0
    assert (torch.tensor(2.0**-130) * 1).item() == 2.0**-130
