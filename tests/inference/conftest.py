"""A network trained on the small data, once for all tests of this folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mnist_lightning.cli.main import main
from mnist_lightning.evaluation.calibration import Calibration
from mnist_lightning.training.callbacks import calibrator

CALIBRATION = Calibration(temperature=2.0, unsure_below=0.75)


@dataclass(frozen=True)
class TrainedRun:
    """A folder with one finished run, `version_0`, trained on the small data."""

    root: Path
    data_dir: Path

    @property
    def best(self) -> Path:
        return self.root / "checkpoints" / "version_0" / "best.ckpt"


@pytest.fixture(scope="session")
def trained_run(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["mnist-lightning"])
        # The small data is learned without a mistake, which would leave the temperature at 1: easily forgotten.
        patch.setattr(calibrator, "calibrate", lambda logits, labels: CALIBRATION)
        with pytest.raises(SystemExit) as stopped:
            main(
                ["fit", "--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.batch_size", "32",
                 "--trainer.max_epochs", "4", "--model.lr", "0.003", "--tensorboard.figures", "none"]
            )  # fmt: skip
    assert not stopped.value.code
    return TrainedRun(root, digits_dir)
