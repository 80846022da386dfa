"""Latency of exported networks relative to PyTorch, for batches of 1 and 256 images.

    python -m benchmarks.latency [--threads 1 2] [--output latency.json]

Measured from uint8 pixels to probabilities, normalisation included; the runtimes alternate. The weights are untrained,
because their values do not affect the latency.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import report
from mnist_lightning import SimpleCNN
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.inference.export.formats import FORMATS
from mnist_lightning.inference.pixel_network import PixelNetwork, Runtime, torch_runtime

ROUNDS = 5  # of all networks in turn
REPEATS = {1: 100, 256: 5}  # timed calls in a round, by batch size
# Calls before those that are timed: the first ones meet cold caches, while the other runtime's threads still spin.
WARM_UP = {1: 20, 256: 1}


@dataclass(frozen=True)
class Latency:
    """The latency of one network for one batch size.

    Args:
        runtime: Name of the network's runtime.
        batch_size: Images in a batch.
        repeats: Number of timed calls.
        median_ms: Median of the calls' times in milliseconds.
        p95_ms: 95th percentile of the calls' times in milliseconds.
    """

    runtime: str
    batch_size: int
    repeats: int
    median_ms: float
    p95_ms: float


def measure(runtimes: Mapping[str, Runtime], images: NDArray[np.uint8]) -> list[Latency]:
    """Time networks in turn, so that other work on the machine affects them equally.

    Args:
        runtimes: The networks, by name.
        images: uint8 (N, 28, 28), at least one; repeated to fill a batch.
    """
    latencies = []
    for batch_size, repeats in REPEATS.items():
        batch = np.resize(images, (batch_size, *images.shape[1:]))
        times_ms: dict[str, list[float]] = {name: [] for name in runtimes}
        for _ in range(ROUNDS):
            for name, run in runtimes.items():
                for call in range(WARM_UP[batch_size] + repeats):
                    start = time.perf_counter()
                    run(batch)
                    if call >= WARM_UP[batch_size]:
                        times_ms[name].append(1e3 * (time.perf_counter() - start))
        for name, times in times_ms.items():
            p95 = statistics.quantiles(times, n=20)[-1]
            latencies.append(Latency(name, batch_size, len(times), statistics.median(times), p95))
    return latencies


def table(latencies: list[Latency]) -> str:
    """Return the latencies as a table for the terminal."""
    lines = ["runtime           batch      median        95 %    an image"]
    for each in latencies:
        image_us = 1e3 * each.median_ms / each.batch_size
        times = f"{each.median_ms:7.2f} ms  {each.p95_ms:7.2f} ms  {image_us:5.0f} µs"
        lines.append(f"{each.runtime:16}  {each.batch_size:5}  {times}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    options = parser.parse_args()

    network = PixelNetwork(SimpleCNN().eval(), MNIST_SCHEMA.mean, MNIST_SCHEMA.std)
    exported = {FORMATS[name].runtime: (FORMATS[name], FORMATS[name].write(network, {})) for name in ("onnx", "pt2")}
    images = np.random.default_rng(0).integers(0, 256, (256, 28, 28), dtype=np.uint8)
    results = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        runtimes = {name: form.read(data) for name, (form, data) in exported.items()}
        latencies = measure(runtimes | {"PyTorch": torch_runtime(network)}, images)
        print(f"{threads} thread{'s' if threads > 1 else ''}\n{table(latencies)}")
        results += [{"threads": threads, **asdict(one)} for one in latencies]
    report.write(options.output, onnxruntime=version("onnxruntime"), latencies=results)


if __name__ == "__main__":
    main()
