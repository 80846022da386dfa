"""How long networks take to answer, from pixels to probabilities."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.inference.pixel_network import Runtime

ROUNDS = 5  # each network's turns
REPEATS = {1: 100, 256: 5}  # answers timed a turn, by batch size
# Answers before those: the first meet cold caches, and the other runtime's threads still spin.
WARM_UP = {1: 20, 256: 1}


@dataclass(frozen=True)
class Latency:
    """How long one network takes for one batch.

    Args:
        runtime: What runs it.
        batch_size: Images a batch.
        repeats: Answers timed.
        median_ms: Half of the answers took no longer than this, in milliseconds.
        p95_ms: 95 % of the answers took no longer than this, in milliseconds.
    """

    runtime: str
    batch_size: int
    repeats: int
    median_ms: float
    p95_ms: float


def measure(runtimes: Mapping[str, Runtime], images: NDArray[np.uint8]) -> list[Latency]:
    """Time networks in turns, so that what else the machine does falls on each alike.

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
                turn = [_time_ms(run, batch) for _ in range(WARM_UP[batch_size] + repeats)]
                times_ms[name] += turn[WARM_UP[batch_size] :]
        for name, times in times_ms.items():
            p95 = statistics.quantiles(times, n=20)[-1]
            latencies.append(Latency(name, batch_size, len(times), statistics.median(times), p95))
    return latencies


def _time_ms(run: Runtime, batch: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    run(batch)
    return 1e3 * (time.perf_counter() - start)


def table(latencies: list[Latency]) -> str:
    """Return the latencies as a table for the terminal."""
    lines = ["runtime           batch      median        95 %    an image"]
    for one in latencies:
        image_us = 1e3 * one.median_ms / one.batch_size
        times = f"{one.median_ms:7.2f} ms  {one.p95_ms:7.2f} ms  {image_us:5.0f} µs"
        lines.append(f"{one.runtime:16}  {one.batch_size:5}  {times}")
    return "\n".join(lines)
