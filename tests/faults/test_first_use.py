"""Eight processes fetch the data at once, into an empty folder or beside a damaged file: all get complete files."""

import multiprocessing
from multiprocessing.pool import Pool
from pathlib import Path

import pytest

from mnist_lightning.data.mnist import fetch
from mnist_lightning.data.mnist.registry import DatasetSource
from tests.data.conftest import dataset
from tests.data.small import NAMES, PUBLISHED, contents, fill, flip_a_bit
from tests.faults.trials import TRIALS

PROCESSES = 8
FORK = multiprocessing.get_context("fork")
ALL_READY = FORK.Barrier(PROCESSES)

__all__ = ["dataset"]  # the fixture


def rush(pool: Pool, dataset: DatasetSource, data_dir: Path, *, damaged: bool) -> None:
    folder = data_dir / dataset.folder / "raw"
    folder.mkdir(parents=True)
    if damaged:
        fill(folder, {NAMES[0]: flip_a_bit(PUBLISHED[NAMES[0]])})
    pool.map(fetch_bundled, [(dataset, data_dir)] * PROCESSES, chunksize=1)
    kept = {name: content for name, content in contents(folder).items() if "damaged" not in name}
    assert kept == PUBLISHED


def fetch_bundled(order: tuple[DatasetSource, Path]) -> None:
    dataset, data_dir = order
    ALL_READY.wait()
    fetch.fetch(dataset, data_dir, source="bundled")


def rounds(dataset: DatasetSource, root: Path, count: int) -> None:
    with FORK.Pool(PROCESSES) as pool:
        for number in range(count):
            rush(pool, dataset, root / str(number), damaged=number % 2 == 1)


def test_processes_that_fetch_at_once_all_get_complete_files(dataset: DatasetSource, tmp_path: Path) -> None:
    rounds(dataset, tmp_path, 10)


@pytest.mark.slow
def test_processes_that_fetch_at_once_all_get_complete_files_round_after_round(
    dataset: DatasetSource, tmp_path: Path
) -> None:
    rounds(dataset, tmp_path, max(TRIALS // 10, 1))
