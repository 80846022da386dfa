"""Any change to a valid pair of IDX files ends in a DatasetError, or in exactly the numbers that are in the files."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnist_lightning.data.mnist import fetch, idx, registry
from mnist_lightning.errors import DatasetError
from tests.faults.trials import TRIALS

COUNT, HEIGHT, WIDTH = 7, 5, 4
MAX_PEAK_BYTES = 2**20  # whatever a header claims; the files have some hundred bytes

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (COUNT, HEIGHT, WIDTH), dtype=np.uint8)
LABELS = RANDOM.integers(0, 10, COUNT, dtype=np.uint8)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


Mutation = Callable[[bytes], bytes]


def set_byte(place: int, value: int) -> Mutation:
    return lambda content: content[:place] + bytes([value]) + content[place + 1 :]


def set_size(axis: int, size: int) -> Mutation:
    return lambda content: content[: 4 + 4 * axis] + struct.pack(">I", size) + content[8 + 4 * axis :]


def cut(length: int) -> Mutation:
    return lambda content: content[:length]


def append(tail: bytes) -> Mutation:
    return lambda content: content + tail


def replace(content: bytes) -> Mutation:
    return lambda _: content


SIZES = st.sampled_from([0, 1, 3, COUNT, HEIGHT, WIDTH, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 200)

# Bytes of the header are changed as often as all others together.
MUTATIONS = st.lists(
    st.one_of(
        st.builds(set_byte, st.integers(0, 15) | st.integers(0, 160), st.integers(0, 255)),
        st.builds(set_size, st.integers(0, 2), SIZES),
        st.builds(cut, st.integers(0, 160)),
        st.builds(append, st.binary(min_size=1, max_size=20)),
        st.builds(replace, st.binary(max_size=40)),
        st.just(gzip.compress),
        st.just(replace(idx_bytes(IMAGES))),
        st.just(replace(idx_bytes(LABELS))),
        st.just(replace(b"<!DOCTYPE html><html></html>")),
    ),
    max_size=3,
)


def parsed(content: bytes, num_dimensions: int) -> NDArray[np.uint8] | None:
    """Read IDX with numpy alone; None where the bytes are not exactly one array of unsigned bytes."""
    if content[:4] != bytes([0, 0, 8, num_dimensions]) or len(content) < 4 + 4 * num_dimensions:
        return None
    shape = [int(size) for size in np.frombuffer(content, ">u4", num_dimensions, 4)]
    items = np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions)
    product = 1
    for size in shape:
        product *= size
    return items.reshape(shape) if items.size == product > 0 else None


def check(folder: Path, change_images: list[Mutation], change_labels: list[Mutation]) -> bool:
    """Compare what `idx` and what numpy make of a changed pair; return whether it is still valid."""
    images_content, labels_content = idx_bytes(IMAGES), idx_bytes(LABELS)
    for mutate in change_images:
        images_content = mutate(images_content)
    for mutate in change_labels:
        labels_content = mutate(labels_content)
    images_path, labels_path = folder / "images", folder / "labels"
    images_path.write_bytes(images_content)
    labels_path.write_bytes(labels_content)
    expected_images, expected_labels = parsed(images_content, 3), parsed(labels_content, 1)
    valid = (
        expected_images is not None
        and expected_labels is not None
        and len(expected_images) == len(expected_labels)
        and bool((expected_labels < 10).all())
    )
    tracemalloc.start()
    try:
        images, labels = idx.read_split(images_path, labels_path)
    except DatasetError as error:
        refusal = str(error)
    else:
        refusal = ""
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < MAX_PEAK_BYTES
    assert valid != bool(refusal), refusal
    if refusal:
        assert refusal.startswith((f"{images_path}: ", f"{labels_path}: "))
        assert "\n" not in refusal
        return False
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations")


def test_an_unchanged_pair_is_read(folder: Path) -> None:
    assert check(folder, [], [])


@example(change_images=[set_size(0, 2**32 - 1), set_size(1, 2**32 - 1), set_size(2, 2**32 - 1)], change_labels=[])
@example(change_images=[set_size(1, WIDTH), set_size(2, HEIGHT)], change_labels=[])  # as many items, another shape
@example(change_images=[set_size(0, COUNT * HEIGHT), set_size(1, 1)], change_labels=[])
@example(change_images=[set_size(0, 2**31), set_size(1, 2), set_size(2, 2**32 - 1)], change_labels=[])
@example(change_images=[], change_labels=[set_byte(8, 10)])
@example(change_images=[replace(idx_bytes(LABELS))], change_labels=[replace(idx_bytes(IMAGES))])
@given(change_images=MUTATIONS, change_labels=MUTATIONS)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_a_changed_pair_is_refused_or_read_as_numpy_reads_it(
    folder: Path, change_images: list[Mutation], change_labels: list[Mutation]
) -> None:
    check(folder, change_images, change_labels)


@pytest.mark.slow
@given(change_images=MUTATIONS, change_labels=MUTATIONS)
@settings(max_examples=20 * TRIALS, deadline=None, derandomize=True, database=None)
def test_a_changed_pair_is_refused_or_read_as_numpy_reads_it_thousands_of_times(
    folder: Path, change_images: list[Mutation], change_labels: list[Mutation]
) -> None:
    check(folder, change_images, change_labels)


def put_own_files(data_dir: Path, images: bytes) -> Path:
    """Make a data folder of somebody's own files, the test images packed; return these."""
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in registry.MNIST.files:
        (raw / file.name).write_bytes(idx_bytes(IMAGES if "images" in file.name else LABELS))
    packed = raw / f"{registry.MNIST.files[2].name}.gz"
    packed.with_suffix("").unlink()
    packed.write_bytes(images)
    return packed


@given(change=MUTATIONS, change_packed=MUTATIONS)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # flushing to disk takes what it takes
)
def test_a_changed_packed_file_is_refused_or_unpacked_as_gzip_unpacks_it(
    tmp_path_factory: pytest.TempPathFactory, change: list[Mutation], change_packed: list[Mutation]
) -> None:
    content = idx_bytes(IMAGES)
    for mutate in change:
        content = mutate(content)
    packed_content = gzip.compress(content)
    for mutate in change_packed:
        packed_content = mutate(packed_content)
    packed = put_own_files(tmp_path_factory.mktemp("packed"), packed_content)
    try:
        fetch.fetch(registry.MNIST, packed.parents[2], source="files")
    except DatasetError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert str(packed.with_suffix("")) in refusal
        assert "\n" not in refusal
    else:
        unpacked = packed.with_suffix("").read_bytes()
        assert unpacked == gzip.decompress(packed_content)
        np.testing.assert_array_equal(idx.read_images(packed.with_suffix("")), parsed(unpacked, 3))
    assert not list(packed.parent.glob("*.part"))


@pytest.mark.parametrize("shape", [(COUNT, HEIGHT, WIDTH), (2**32 - 1,) * 3])
def test_a_gzip_bomb_costs_neither_memory_nor_disk(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bomb = struct.pack(">4B3I", 0, 0, 8, 3, *shape) + bytes(2**26)
    packed = put_own_files(tmp_path, gzip.compress(bomb, 1))
    del bomb
    tracemalloc.start()
    with pytest.raises(DatasetError, match=packed.name):
        fetch.fetch(registry.MNIST, tmp_path, source="files")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 2**20
    assert {path.stat().st_size < 2**20 for path in packed.parent.iterdir()} == {True}
