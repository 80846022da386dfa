"""Test accuracy of a config over n seeds, and of the n networks together.

    python -m benchmarks.accuracy --config configs/best.yaml [--seeds 10] [--output accuracy.json]

Each seed is a `fit` and a `test` as a person types them, in a folder of its own below `--root`; a seed that has its
result there is not run again, so an interrupted benchmark goes on. A training's cost is given in processor time, of
all threads together, which other work on the machine stretches little. The networks together: the mean of their
probabilities, for all n and for groups of five.
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
from mnist_lightning.inference.network import load_network

GROUP = 5  # networks in an ensemble that is reported beside that of all
# Of test.json, which also has the whole score card.
KEPT = ("correct", "total", "accuracy", "interval", "loss", "checkpoint", "epoch", "device", "precision", "torch")


def main() -> None:
    """Train what is missing, then print and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to n - 1")
    parser.add_argument("--root", type=Path, default=Path("accuracy"), help="folder of the runs")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, which share the threads")
    parser.add_argument("--output", type=Path, help="JSON file to write")
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
            {"what": f"{GROUP} networks together", "n": len(groups), "test accuracy, %": percent(groups)},
            {
                "what": f"all {options.seeds} together",
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
    """Return the result of a seed, trained and tested unless it is there already."""
    root = options.root / str(seed)
    filed = root / "result.json"
    if not filed.exists():
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        spent_s = command("fit", "--config", str(options.config), "--seed_everything", str(seed), "--data.data_dir",
                          str(options.data_dir), "--trainer.default_root_dir", str(root), threads=threads)  # fmt: skip
        command("test", "--trainer.default_root_dir", str(root), threads=threads)
        (scored,) = root.glob("lightning_logs/*/test.json")
        score = json.loads(scored.read_text())
        result = {key: score[key] for key in KEPT}
        result |= {"train_processor_s": spent_s, **report.machine(), "threads": threads}
        filed.write_text(json.dumps(result))
    result = json.loads(filed.read_text())
    spent_s = result["train_processor_s"]
    print(f"seed {seed}: {result['correct']}/{result['total']}, trained in {spent_s:.0f} processor seconds", flush=True)
    return dict(result)


def command(*args: str, threads: int) -> float:
    """Run a command of the package, return its processor time in seconds; a failure ends the benchmark."""
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
    """Return the probabilities (n, N, 10) of every network for the test images, and their labels (N,)."""
    data = MNISTDataModule(str(data_dir))
    data.setup("test")
    batches = list(data.test_dataloader())
    networks = [load_network("best", root).network for root in roots]
    probabilities = torch.stack([torch.cat([net(images).softmax(1) for images, _ in batches]) for net in networks])
    return probabilities, torch.cat([labels for _, labels in batches])


def score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the accuracy of the mean of probabilities (n, N, 10)."""
    return float((probabilities.mean(dim=0).argmax(dim=1) == labels).double().mean())


def percent(accuracies: list[float]) -> str:
    """Return a mean ± standard deviation in percent; nothing for no figures."""
    return report.plus_minus([100 * accuracy for accuracy in accuracies], 3) if accuracies else ""


if __name__ == "__main__":
    main()
