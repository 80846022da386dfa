"""Latency of exported networks relative to PyTorch, for batches of 1 and 256 images.

    python -m benchmarks.latency [--threads 1 2] [--output latency.json]

Measured from uint8 pixels to probabilities, normalisation included; the runtimes alternate. The weights are untrained,
because their values do not affect the latency.
"""

from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import torch

from benchmarks import report
from mnist_lightning import SimpleCNN
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.inference.export import latency
from mnist_lightning.inference.export.formats import FORMATS
from mnist_lightning.inference.pixel_network import PixelNetwork, torch_runtime


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
        latencies = latency.measure(runtimes | {"PyTorch": torch_runtime(network)}, images)
        print(f"{threads} thread{'s' if threads > 1 else ''}\n{latency.table(latencies)}")
        results += [{"threads": threads, **asdict(one)} for one in latencies]
    report.write(options.output, onnxruntime=version("onnxruntime"), latencies=results)


if __name__ == "__main__":
    main()
