"""Speed, start-up time and memory on 60,000 to 4,000,000 images, in synthetic IDX files.

    python -m benchmarks.scale [--images 60000 600000 4000000] [--output scale.json]

For each number of images a process runs `fit` on random pixels, with the same number of steps. Memory is the anonymous
memory of the process: pages of the memory-mapped files, which the system can reclaim, are not counted. The files of
four million images take 3.1 GB of disk while the benchmark runs.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from mnist_lightning.data.mnist import idx, registry

CHUNK = 100_000  # images written at once
SAMPLE_S = 0.005


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[60_000, 600_000, 4_000_000])
    parser.add_argument("--steps", type=int, default=400, help="training steps per epoch, at batch size 64")
    parser.add_argument("--repeats", type=int, default=3, help="runs for each number of images, alternating")
    options = parser.parse_args()
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in options.images}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for count in options.images:
            write_files(Path(folder) / str(count), count)
        for _ in range(options.repeats):
            for count in options.images:
                runs[count].append(measured_in_subprocess(Path(folder) / str(count), options.steps))
    report.print_table(
        {
            "images": f"{count:,}",
            "n": options.repeats,
            "training images/s": report.plus_minus([run["images_per_s"] for run in results], 0),
            "s from start of fit to first step": report.plus_minus([run["startup_s"] for run in results], 2),
            "memory before fit, MB": report.plus_minus([run["base_mb"] for run in results], 0),
            "peak memory, MB": report.plus_minus([run["peak_mb"] for run in results], 0),
        }
        for count, results in runs.items()
    )
    report.write(options.output, steps=options.steps, runs={str(count): results for count, results in runs.items()})


def write_files(data_dir: Path, count: int) -> None:
    """Write a training file of random images and a small test file."""
    raw = data_dir / registry.MNIST.folder / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, images in (("train", count), ("t10k", 100)):
        path = raw / f"{prefix}-images-idx3-ubyte"
        chunk = rng.integers(0, 256, (min(images, CHUNK), 28, 28), dtype=np.uint8)
        idx.write(path, chunk)
        with path.open("r+b") as file:  # repeat the chunk, and put the full count into the header
            file.seek(4)
            file.write(images.to_bytes(4, "big"))
            file.seek(0, 2)
            for start in range(CHUNK, images, CHUNK):
                file.write(chunk[: min(CHUNK, images - start)].tobytes())
        idx.write(raw / f"{prefix}-labels-idx1-ubyte", rng.integers(0, 10, images, dtype=np.uint8))


def measured_in_subprocess(data_dir: Path, steps: int) -> dict[str, float]:
    """Return the figures of a `fit` in a process of its own."""
    statement = f"from benchmarks.scale import measure; measure({str(data_dir)!r}, {steps})"
    out = subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    return result


def measure(data_dir: str, steps: int) -> None:
    """Train two epochs and print the figures of the second."""
    from benchmarks.contenders import TimedCLI, Turns

    class Startup(Turns):
        first_step_s = 0.0

        def on_train_start(self, *args: Any) -> None:
            self.first_step_s = time.perf_counter()

    clock, base, samples, done = Startup(lambda ended: None), anonymous_memory_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            samples.append(anonymous_memory_mb())

    watcher = threading.Thread(target=watch, daemon=True)  # so that the process ends if `fit` fails
    watcher.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        TimedCLI(
            ["fit", "--data.data_dir", data_dir, "--trainer.default_root_dir", folder, "--trainer.max_epochs", "2",
             "--trainer.limit_train_batches", str(steps)],
            clock,
        )  # fmt: skip
    done.set()
    watcher.join()
    result = {
        "images_per_s": clock.epochs[1]["images_per_s"],
        "startup_s": clock.first_step_s - start,
        "base_mb": base,
        "peak_mb": max(samples),
    }
    print(json.dumps(result))


def anonymous_memory_mb() -> float:
    """Return the resident anonymous memory in MB."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
