"""Training speed of two processes with one thread each relative to one process with two threads.

    python -m benchmarks.processes [--config configs/default.yaml] [--rounds 3] [--output processes.json]

Each run is a `fit` as typed on the command line, for two epochs without validation, of which the second is timed; the
set-ups alternate. Two processes train once with the config's batch size each, so that a step has twice as many images,
and once with half that batch size, so that they take the same steps as one process.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import report


@dataclass(frozen=True)
class Setup:
    """A way to use two cores: its name, the number of processes, and the batch size of each."""

    name: str
    processes: int
    batch_size: int


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_800, help="training images per epoch")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    batch_size = yaml.safe_load(options.config.read_text()).get("data", {}).get("batch_size", 64)
    setups = [
        Setup(f"1 process, 2 threads, batches of {batch_size}", 1, batch_size),
        Setup(f"2 processes, 1 thread each, batches of {batch_size} each", 2, batch_size),
        Setup(f"2 processes, 1 thread each, batches of {batch_size // 2} each", 2, batch_size // 2),
    ]
    speeds: dict[str, list[float]] = {setup.name: [] for setup in setups}
    for _ in range(options.rounds):
        for setup in setups:
            speeds[setup.name].append(images_per_s(setup, options.config, options.data_dir, options.images))
    one = speeds[setups[0].name]
    report.print_table(
        {
            "processes": name,
            "n": len(values),
            "training images/s": report.plus_minus(values, 0),
            "over one process": report.plus_minus([value / base for value, base in zip(values, one, strict=True)], 2),
        }
        for name, values in speeds.items()
    )
    over_one = {
        name: report.summary([value / base for value, base in zip(values, one, strict=True)])
        for name, values in list(speeds.items())[1:]
    }
    report.write(options.output, config=str(options.config), images_per_s=speeds, over_one_process=over_one)


def images_per_s(setup: Setup, config: Path, data_dir: Path, images: int) -> float:
    """Return the training images per second in the second epoch, over all processes."""
    steps = images // (setup.processes * setup.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "mnist_lightning", "fit", "--config", str(config), "--data.data_dir", str(data_dir),
            "--data.batch_size", str(setup.batch_size), "--trainer.accelerator", "cpu",
            "--trainer.strategy", "ddp" if setup.processes > 1 else "auto", "--trainer.devices", str(setup.processes),
            "--trainer.max_epochs", "2", "--trainer.limit_train_batches", str(steps),
            "--trainer.limit_val_batches", "0", "--trainer.default_root_dir", folder,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(2 // setup.processes)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = re.findall(r"^epoch  1 .* ([0-9.]+) s$", done.stdout, re.M)
    return steps * setup.processes * setup.batch_size / float(seconds[0])


if __name__ == "__main__":
    main()
