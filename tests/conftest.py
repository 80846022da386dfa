"""Small data that can be learned, and the command line in this process."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

# Lightning 2.6 makes calls that jsonargparse 4.53 deprecates (four texts); they go when Lightning 2.7 is the floor.
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
# The small data gives a thread nothing to do but wait for the others; on a busy machine that wait is long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell has Ctrl-C ignored in what it runs in the background, and so would be what the tests start there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from mnist_lightning.cli.main import main
from mnist_lightning.data.mnist import idx

TRAIN_COUNT, TEST_COUNT = 300, 101


def make_digits(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (count, 28, 28) with one bright square, whose position determines the label, under noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 + 12 * (label // 5), 1 + 5 * (label % 5)
        image[row : row + 8, column : column + 5] = 250
    return images, labels


# Of the training images of `digits_dir`, as the schema of a data set of its own rounds them.
_PIXELS = make_digits(TRAIN_COUNT, seed=0)[0] / 255
DIGITS_MEAN, DIGITS_STD = round(float(_PIXELS.mean()), 4), round(float(_PIXELS.std()), 4)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with own IDX files of MNIST's names: 300 images to train on, 101 to test on."""
    data_dir = tmp_path_factory.mktemp("digits")
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count, seed in (("train", TRAIN_COUNT, 0), ("t10k", TEST_COUNT, 1)):
        images, labels = make_digits(count, seed)
        idx.write(raw / f"{prefix}-images-idx3-ubyte", images)
        idx.write(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return data_dir


@dataclass(frozen=True)
class Outcome:
    """What a command came to: its exit code, and the text on stdout and stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mnist-lightning"])

    def run(*args: str) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            main(list(args))
        out, err = capsys.readouterr()
        code = stopped.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), out, err)

    return run


def run_in(root: Path, *commands: Sequence[str]) -> None:
    """Run command lines in this process, one after the other in a folder; each must succeed."""
    with contextlib.chdir(root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mnist-lightning"])
        for args in commands:
            with pytest.raises(SystemExit) as stopped:
                main(list(args))
            assert not stopped.value.code, args


@pytest.fixture
def fit(command: Command, digits_dir: Path) -> Command:
    """Train on the small data: a handful of steps an epoch, whose figures would take longer than they do."""
    small = ("--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.batch_size", "32")

    def run(*args: str) -> Outcome:
        return command("fit", *small, "--tensorboard.figures", "none", *args)

    return run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every figure empty and small, for tests of other claims: figures take most of the time of a small test."""
    # Imported here, because the process that hands out the tests reads this file too, and needs neither them nor torch.
    from matplotlib.figure import Figure

    from mnist_lightning.evaluation import plots

    for name in ("confusion_matrix", "reliability_diagram", "learning_curves", "worst_images"):
        monkeypatch.setattr(plots, name, lambda *_: Figure((1, 1), dpi=10))


def skip_without_packages(names: str) -> NoReturn:
    """Skip a test that needs packages of Debian; fail it under .ci/run, which could have installed them."""
    (pytest.fail if "REQUIRE_SYSTEM_PACKAGES" in os.environ else pytest.skip)(f"needs: apt-get install {names}")


def folders(root: Path) -> list[str]:
    """Return the names of all that a folder holds, as deep as it goes."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
