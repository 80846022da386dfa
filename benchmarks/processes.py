"""Training images a second of two processes with a thread each against one process with two threads, in turns.

    python -m benchmarks.processes [--config configs/default.yaml] [--rounds 3] [--output processes.json]

Each is `fit` as a person types it, for two epochs without validation, of which the second counts. Two processes train
once with the config's batches each, which makes a step of twice as many images, and once with batches of half that
size, which makes the same step as one process.
"""

import argparse
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
class Arm:
    """A way to use two processors: its name, and how many processes share the work with how many images a step each."""

    name: str
    processes: int
    batch_size: int


def main() -> None:
    """Measure, print and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_800, help="training images an epoch")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    batch_size = yaml.safe_load(options.config.read_text()).get("data", {}).get("batch_size", 64)
    arms = [
        Arm(f"1 process, 2 threads, batches of {batch_size}", 1, batch_size),
        Arm(f"2 processes, 1 thread each, batches of {batch_size} each", 2, batch_size),
        Arm(f"2 processes, 1 thread each, batches of {batch_size // 2} each", 2, batch_size // 2),
    ]
    speeds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for _ in range(options.rounds):
        for arm in arms:
            speeds[arm.name].append(images_per_s(arm, options.config, options.data_dir, options.images))
    one = speeds[arms[0].name]
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


def images_per_s(arm: Arm, config: Path, data_dir: Path, images: int) -> float:
    """Return the training images a second of the second epoch, of all processes together."""
    steps = images // (arm.processes * arm.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "mnist_lightning", "fit", "--config", str(config), "--data.data_dir", str(data_dir),
            "--data.batch_size", str(arm.batch_size), "--trainer.accelerator", "cpu",
            "--trainer.strategy", "ddp" if arm.processes > 1 else "auto", "--trainer.devices", str(arm.processes),
            "--trainer.max_epochs", "2", "--trainer.limit_train_batches", str(steps),
            "--trainer.limit_val_batches", "0", "--trainer.default_root_dir", folder,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(2 // arm.processes)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds = re.findall(r"^epoch  1 .* ([0-9.]+) s$", done.stdout, re.M)
    return steps * arm.processes * arm.batch_size / float(seconds[0])


if __name__ == "__main__":
    main()
