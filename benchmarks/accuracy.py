"""Test accuracy of a config over n seeds, and of ensembles of the n networks.

    python -m benchmarks.accuracy --config configs/best.yaml [--seeds 10] [--output accuracy.json]

Each seed is a `fit` and a `test` as typed on the command line, in a folder of its own below `--root`. A seed that has
its result there is not run again, so an interrupted benchmark can be resumed. The cost of training is given in CPU
time, summed over all threads, because other work on the machine affects it little. An ensemble averages the
probabilities of its networks; there is one of all n, and one for each group of five.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from mnist_lightning import MNISTDataModule
from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.inference.network import load_network

GROUP = 5  # networks in the smaller ensembles
# The entries of test.json that are kept; the analysis of each class is not.
KEPT = ("correct", "total", "accuracy", "interval", "loss", "checkpoint", "epoch", "device", "precision", "torch")


def main() -> None:
    """Train the seeds that have no result yet, then print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to n - 1")
    parser.add_argument("--root", type=Path, default=Path("accuracy"), help="folder of the runs")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the threads are divided among them")
    options = parser.parse_args()
    MNISTDataModule(str(options.data_dir)).prepare_data()
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda seed: run_seed(seed, options), range(options.seeds)))

    accuracies = [result["accuracy"] for result in results]
    probabilities, labels = ensemble([options.root / str(seed) for seed in range(options.seeds)], options.data_dir)
    groups = [score(group, labels) for group in torch.split(probabilities, GROUP) if len(group) == GROUP]
    report.print_table(
        [
            {"what": "one network", "n": len(accuracies), "test accuracy, %": percent(accuracies)},
            {"what": f"ensembles of {GROUP}", "n": len(groups), "test accuracy, %": percent(groups)},
            {
                "what": f"ensemble of all {options.seeds}",
                "n": 1,
                "test accuracy, %": percent([score(probabilities, labels)]),
            },
        ]
    )
    report.write(
        options.output,
        config=str(options.config),
        test_accuracy=report.summary(accuracies),
        train_processor_s=report.summary([result["train_processor_s"] for result in results]),
        ensembles_of_5=groups,
        ensemble_of_all=score(probabilities, labels),
        seeds=results,
    )


def run_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a seed; train and test it if there is none yet."""
    root = options.root / str(seed)
    result_file = root / "result.json"
    if not result_file.exists():
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        spent_s = command("fit", "--config", str(options.config), "--seed_everything", str(seed), "--data.data_dir",
                          str(options.data_dir), "--trainer.default_root_dir", str(root), threads=threads)  # fmt: skip
        command("test", "--trainer.default_root_dir", str(root), threads=threads)
        (scored,) = root.glob("lightning_logs/*/test.json")
        score = json.loads(scored.read_text())
        result = {key: score[key] for key in KEPT}
        result |= {"train_processor_s": spent_s, **report.machine(), "threads": threads}
        result_file.write_text(json.dumps(result))
    result = json.loads(result_file.read_text())
    spent_s = result["train_processor_s"]
    print(f"seed {seed}: {result['correct']}/{result['total']}, trained in {spent_s:.0f} s of CPU time", flush=True)
    return dict(result)


def command(*args: str, threads: int) -> float:
    """Run a command of the package and return its CPU time in seconds; a failure ends the benchmark."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    whole = [sys.executable, "-m", "mnist_lightning", *args]
    process = subprocess.Popen(whole, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, whole)
    return usage.ru_utime + usage.ru_stime


@torch.inference_mode()
def ensemble(roots: list[Path], data_dir: Path) -> tuple[Tensor, Tensor]:
    """Return the probabilities (n, N, 10) of all networks on the test images, and the labels (N,)."""
    data = MNISTDataModule(str(data_dir))
    data.setup("test")
    batches = list(data.test_dataloader())
    networks = [load_network(ImageSchema, "best", root).network for root in roots]
    probabilities = torch.stack([torch.cat([net(images).softmax(1) for images, _ in batches]) for net in networks])
    return probabilities, torch.cat([labels for _, labels in batches])


def score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the accuracy of averaged probabilities (n, N, 10)."""
    return float((probabilities.mean(dim=0).argmax(dim=1) == labels).double().mean())


def percent(accuracies: list[float]) -> str:
    """Return mean ± standard deviation in percent; an empty text without values."""
    return report.plus_minus([100 * accuracy for accuracy in accuracies], 3) if accuracies else ""


if __name__ == "__main__":
    main()
