"""What durable checkpoints cost: their time against plain Lightning saving, as a share of an epoch's training.

    python benchmarks/saving.py [--repeats 20] [--steps 100] [--output saving.json]

Both kinds write the same checkpoint of SimpleCNN and Adam, in turns. An epoch's time is that of its 860 steps, taken
from a number of real ones in the same run, without validation, so the share is an upper bound.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.nn import functional as F

from mnist_lightning import SimpleCNN
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from mnist_lightning.training.environment import environment

STEPS_AN_EPOCH = 860  # 55,000 images in batches of 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="saves of each kind, at least 2")
    parser.add_argument("--steps", type=int, default=100, help="training steps to time")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()

    network = SimpleCNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    epoch_s = STEPS_AN_EPOCH * time_of_a_step(network, optimizer, options.steps)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        plain, durable = (Path(folder) / name for name in ("plain", "durable"))
        plain.mkdir()
        durable.mkdir()
        times: dict[str, list[float]] = {"plain": [], "durable": []}
        for epoch in range(options.repeats):
            weights = {f"network.{name}": value for name, value in network.state_dict().items()}
            checkpoint = {
                "state_dict": weights,
                "optimizer_states": [optimizer.state_dict()],
                "epoch": epoch,
                "global_step": epoch + 1,
                "metrics": {"val_acc": epoch / 1e4, "val_loss": 0.1},  # each is the best so far: the dearest case
            }
            times["plain"].append(timed(lambda: save_plain(checkpoint, plain, epoch)))  # noqa: B023  # called at once
            times["durable"].append(
                timed(lambda: DurableCheckpointIO().save_checkpoint(checkpoint, durable / f"{epoch}.ckpt"))  # noqa: B023
            )

    result = {
        "epoch_s": epoch_s,
        "n": options.repeats,
        **{
            f"{kind}_ms": [1e3 * statistics.mean(values), 1e3 * statistics.stdev(values)]
            for kind, values in times.items()
        },
        "share_of_an_epoch": (statistics.mean(times["durable"]) - statistics.mean(times["plain"])) / epoch_s,
        "environment": environment(torch.device("cpu"), "32-true"),
    }
    print(f"an epoch of {STEPS_AN_EPOCH} steps: {epoch_s:.1f} s; n = {options.repeats}")
    for kind in times:
        mean, std = result[f"{kind}_ms"]
        print(f"{kind:8} {mean:7.1f} ± {std:.1f} ms an epoch")
    print(f"durable saving costs {100 * result['share_of_an_epoch']:.2f} % of an epoch more than plain saving")
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def save_plain(checkpoint: dict[str, object], folder: Path, epoch: int) -> None:
    """Save as Lightning would with `save_top_k=-1`, `save_last` and a second callback for the best: three files."""
    for name in (f"{epoch}.ckpt", "last.ckpt", "best.ckpt"):
        TorchCheckpointIO().save_checkpoint(checkpoint, folder / name)


def time_of_a_step(network: SimpleCNN, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Return the seconds of a training step of 64 images, the mean of a number of them."""
    images = torch.randn(64, 28, 28, 1).permute(0, 3, 1, 2)
    labels = torch.randint(10, (64,))

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images), labels))
            optimizer.step()

    train(5)
    return timed(lambda: train(steps)) / steps


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
