"""A training step of SimpleCNN with the fused kernels and with torch's: forward, backward and Adam.

    python -m benchmarks.kernels [--batch_sizes 64] [--rounds 60] [--output kernels.json]

The contenders alternate step by step in one process: kernels and torch, each in float32 and under bfloat16 autocast. A
ratio is that of medians. Other work on the machine prolongs all of them, but not in the same proportion: the shortest
times, which are printed too, suffer least.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import report
from mnist_lightning import SimpleCNN
from mnist_lightning.models.kernels import conv_pool_relu
from mnist_lightning.training.memory import fast_memory

WARM_UP = 5  # steps of each contender before those that are timed
CONTENDERS = {
    "kernels, float32": (True, False),
    "kernels, bfloat16": (True, True),
    "torch, float32": (False, False),
    "torch, bfloat16": (False, True),
}


@dataclass(frozen=True)
class Step:
    """The time of a training step.

    Args:
        name: Kernels and precision.
        batch_size: Images of a step.
        n: Number of timed steps.
        median_ms: Median of their times in milliseconds.
        min_ms: The shortest.
    """

    name: str
    batch_size: int
    n: int
    median_ms: float
    min_ms: float


def contender(images: Tensor, labels: Tensor, *, kernels: bool, bfloat16: bool) -> Callable[[], None]:
    """Return a function that trains a network of its own for a step."""
    torch.manual_seed(0)
    network = SimpleCNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    libraries = conv_pool_relu._libraries() if kernels else {}

    def step() -> None:
        with mock.patch.object(conv_pool_relu, "_libraries", return_value=libraries):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return step


def measure(batch_size: int, rounds: int) -> list[Step]:
    """Time the contenders in turn."""
    images = torch.randn(batch_size, 1, 28, 28).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch_size,))
    steps = {
        name: contender(images, labels, kernels=kernels, bfloat16=bfloat16)
        for name, (kernels, bfloat16) in CONTENDERS.items()
    }
    times_ms: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= WARM_UP:
                times_ms[name].append(1e3 * (time.perf_counter() - start))
    return [
        Step(name, batch_size, len(times), statistics.median(times), min(times)) for name, times in times_ms.items()
    ]


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[64], help="images of a step")
    parser.add_argument("--rounds", type=int, default=60, help="timed steps of each contender")
    options = parser.parse_args()
    results = []
    with fast_memory():  # as `fit` does
        for batch_size in options.batch_sizes:
            results += [asdict(step) for step in measure(batch_size, options.rounds)]
    report.print_table(results)
    report.write(options.output, kernels=conv_pool_relu.kernel_set(), steps=results)


if __name__ == "__main__":
    main()
