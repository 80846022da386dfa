"""Start-up time of help, version, a training step and a prediction, relative to the imports that they need.

    python -m benchmarks.startup [--repeats 10] [--output startup.json]

Each line is a process, and they alternate; the times run from its start to its end, or to its first training step.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from benchmarks import report
from mnist_lightning import MNISTDataModule

FIRST_STEP = "the first training step"
PREDICTION = "predict, for one picture"
STATEMENTS = {
    "python": "pass",
    "import mnist_lightning": "import mnist_lightning",
    "import torch": "import torch",
    "import lightning.pytorch.cli": "import lightning.pytorch.cli",
}


class StopAtFirstStep(Callback):
    """Exit just before the first training step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Exit, which stops the parent's clock."""
        sys.exit(0)


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="number of starts of each, at least 2")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    MNISTDataModule(str(options.data_dir)).prepare_data()
    commands = {name: ["-c", statement] for name, statement in STATEMENTS.items()}
    commands |= {name: ["-m", "mnist_lightning", name] for name in ("--version", "--help")}
    commands[FIRST_STEP] = ["-c", f"from benchmarks.startup import first_step; first_step({str(options.data_dir)!r})"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        commands[PREDICTION] = prepare_prediction(Path(folder), options.data_dir)
        times[PREDICTION] = []
        for _ in range(options.repeats):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - start)
    report.print_table(
        {"what": name, "n": options.repeats, "s": report.plus_minus(values, 2)} for name, values in times.items()
    )
    beyond = [a - b for a, b in zip(times[FIRST_STEP], times["import lightning.pytorch.cli"], strict=True)]
    print(f"{FIRST_STEP}, beyond import lightning.pytorch.cli: {report.plus_minus(beyond, 2, ' s')}")
    report.write(
        options.output,
        seconds={name: report.summary(values) for name, values in times.items()},
        first_step_beyond_lightning=report.summary(beyond),
    )


def prepare_prediction(root: Path, data_dir: Path) -> list[str]:
    """Create a checkpoint and an image; return the command that labels it."""
    place = ["--data.data_dir", str(data_dir), "--trainer.default_root_dir", str(root)]
    fit = ["-m", "mnist_lightning", "fit", "--trainer.max_steps", "20", "--data.val_size", "0", *place]
    subprocess.run([sys.executable, *fit], check=True, stdout=subprocess.DEVNULL)
    data = MNISTDataModule(str(data_dir))
    data.setup("test")
    images = data.samples("test").inputs
    Image.fromarray(255 - images[0].numpy()).resize((280, 280)).save(root / "digit.png")
    checkpoint = root / "checkpoints" / "version_0" / "last.ckpt"
    return ["-m", "mnist_lightning", "predict", str(root / "digit.png"), "--ckpt_path", str(checkpoint)]


def first_step(data_dir: str) -> None:
    """Run `fit` up to its first step."""
    from benchmarks.contenders import TimedCLI

    with tempfile.TemporaryDirectory() as folder:
        TimedCLI(
            ["fit", "--data.data_dir", data_dir, "--trainer.default_root_dir", folder], StopAtFirstStep()
        )  # fmt: skip


if __name__ == "__main__":
    main()
