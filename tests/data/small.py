"""A small data set as it was published, and fetching it, in this process or in one of its own."""

import gzip
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

from mnist_lightning.data.mnist import fetch
from mnist_lightning.data.mnist.registry import DatasetSource

REPOSITORY = Path(__file__).parents[2]
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(*shape: int, below: int = 10, seed: int = 0) -> bytes:
    items = np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + items.tobytes()


def shape_in_header(content: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f">{content[3]}I", content, 4)


def four_files(train: int, test: int, side: int) -> dict[str, bytes]:
    shapes = ((train, side, side), (train,), (test, side, side), (test,))
    return {name: idx_bytes(*shape, seed=seed) for seed, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))}


PUBLISHED = four_files(60, 20, 6)
OWN = four_files(12, 5, 9)
PACKED = {f"{name}.gz": gzip.compress(content) for name, content in PUBLISHED.items()}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch_mnist(
    dataset: DatasetSource, folder: Path, source: fetch.Source = "auto", mirrors: tuple[str, ...] = ()
) -> dict[str, bytes]:
    assert fetch.fetch(dataset, folder.parents[1], source=source, mirrors=mirrors) == folder
    return contents(folder)


def flip_a_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def start_fetch(
    dataset: DatasetSource, folder: Path, mirror: str = "", limit_bytes: int = 0
) -> subprocess.Popen[bytes]:
    """Run `fetch` in a process of its own, which exits with the error's exit code and prints its message."""
    script = """
import pickle, resource, sys
from mnist_lightning.data.mnist import download, fetch
from mnist_lightning.errors import UserError
download.TIMEOUT_S = download.GRACE_S = 600  # eight processes may be slow to start on a busy machine
dataset, data_dir, mirrors, limit_bytes = pickle.load(sys.stdin.buffer)
if limit_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
try:
    fetch.fetch(dataset, data_dir, source="download" if mirrors else "bundled", mirrors=mirrors)
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    with process.stdin:
        pickle.dump((dataset, folder.parents[1], (mirror,) if mirror else (), limit_bytes), process.stdin)
    process.stdin = None  # for communicate
    return process
