"""How long an exported network takes to answer, against PyTorch, for batches of 1 and 256 images.

    python -m benchmarks.latency [--threads 1 2] [--output latency.json]

From uint8 pixels to probabilities, normalisation included; each runtime's turns alternate with the others'. The weights
are untrained, for what a network has learned does not change how long it takes.
"""

import argparse
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks import report
from mnist_lightning import SimpleCNN
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.inference.export import latency
from mnist_lightning.inference.export.formats import FORMATS
from mnist_lightning.inference.pixel_network import PixelNetwork, torch_runtime


def main() -> None:
    """Measure, print and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure with")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()

    network = PixelNetwork(SimpleCNN().eval(), MNIST_SCHEMA.mean, MNIST_SCHEMA.std)
    exported = {FORMATS[name].runtime: (FORMATS[name], FORMATS[name].write(network, {})) for name in ("onnx", "pt2")}
    images = np.random.default_rng(0).integers(0, 256, (256, 28, 28), dtype=np.uint8)
    results = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        runtimes = {name: form.read(data) for name, (form, data) in exported.items()}
        latencies = latency.measure(runtimes | {"PyTorch": torch_runtime(network)}, images)
        print(f"{threads} thread{'s' if threads > 1 else ''}\n{latency.table(latencies)}")
        results += [{"threads": threads, **asdict(one)} for one in latencies]
    report.write(options.output, onnxruntime=version("onnxruntime"), latencies=results)


if __name__ == "__main__":
    main()
