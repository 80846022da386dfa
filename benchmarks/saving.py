"""The cost of durable checkpoints: a run of 5 epochs with them, relative to one with Lightning's plain saving.

    python -m benchmarks.saving [--repeats 20] [--steps 100] [--output saving.json]

Both kinds write the same checkpoint of SimpleCNN and Adam, alternating, because a difference of tenths of a percent is
lost in the noise of whole runs. A run's time is that of its optimizer steps, extrapolated from a number of them in the
same process; validation and everything else would only reduce the fraction.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.nn import functional as F

from benchmarks import report
from mnist_lightning import SimpleCNN
from mnist_lightning.runs import manifest, run_folders
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO

STEPS_PER_EPOCH = 860  # 55,000 images in batches of 64
EPOCHS = 5  # each is saved once


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="number of saves of each kind, at least 2")
    parser.add_argument("--steps", type=int, default=100, help="training steps to time")
    options = parser.parse_args()

    network = SimpleCNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    training_s = EPOCHS * STEPS_PER_EPOCH * step_time(network, optimizer, options.steps)
    plain_s, durable_s = [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        plain, durable = Path(folder, "plain"), run_folders.create(Path(folder)).checkpoints
        plain.mkdir()
        for epoch in range(options.repeats):
            checkpoint = {
                "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
                "optimizer_states": [optimizer.state_dict()],
                "epoch": epoch,
                "global_step": epoch + 1,
                "metrics": {
                    "val_acc": epoch / 1e4,
                    "val_loss": 0.1,
                },  # the best so far: the most expensive case
            }
            plain_s.append(timed(partial(save_plain, checkpoint, plain, epoch)))
            durable_s.append(
                timed(partial(DurableCheckpointIO().save_checkpoint, checkpoint, durable / f"{epoch}.ckpt"))
            )
        assert (durable / manifest.BEST).is_file()
    extra_s = EPOCHS * (statistics.mean(durable_s) - statistics.mean(plain_s))
    plain_run_s = training_s + EPOCHS * statistics.mean(plain_s)
    for kind, seconds in (("plain", plain_s), ("durable", durable_s)):
        times_ms = report.plus_minus([1e3 * value for value in seconds], 1, " ms")
        print(f"{kind:8} saving {times_ms} per epoch (n = {options.repeats})")
    fraction = extra_s / plain_run_s
    print(f"{EPOCHS} epochs with plain saving {plain_run_s:.1f} s; durable saving adds {100 * fraction:.2f} %")
    report.write(
        options.output,
        training_s=training_s,
        plain_s=report.summary(plain_s),
        durable_s=report.summary(durable_s),
        extra_share=fraction,
    )


def save_plain(checkpoint: dict[str, object], folder: Path, epoch: int) -> None:
    """Save three files, as Lightning does with `save_top_k=-1`, `save_last` and a second callback for the best."""
    for name in (f"{epoch}.ckpt", "last.ckpt", "best.ckpt"):
        TorchCheckpointIO().save_checkpoint(checkpoint, folder / name)


def step_time(network: SimpleCNN, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Return the mean time of a training step of 64 images, in seconds."""
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
    """Return the time of a call in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
