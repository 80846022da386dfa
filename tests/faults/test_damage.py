"""A checkpoint with flipped bytes or cut short is refused in a line, or has the same content as before."""

import random
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch

from mnist_lightning import Classifier, SimpleCNN
from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs import checkpoint_verification, run_folders
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from tests.faults.trials import TRIALS
from tests.training.bits import assert_same


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkpoint of 15 KB in a run's folder, saved as every checkpoint is."""
    weights = {f"network.{name}": value for name, value in SimpleCNN().state_dict().items() if value.numel() < 2000}
    momenta = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.rand(10, 128)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {
        "state_dict": weights,
        "epoch": 0,
        "global_step": 7,
        "metrics": {"val_acc": 0.9, "val_loss": 0.1},
        "hyper_parameters": {"lr": 1e-3, "seed": 0},
        "optimizer_states": [momenta],
    }
    path = run_folders.create(tmp_path).checkpoints / "epoch=00.ckpt"
    DurableCheckpointIO().save_checkpoint(checkpoint, path)
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The path of a copy that is in no manifest: only its own checksums protect it."""
    return tmp_path / "copy.ckpt"


def refused(path: Path) -> bool:
    """Return whether a file is refused, in a line that names it; other errors are raised."""
    try:
        checkpoint_verification.read_checkpoint(path)
    except CheckpointError as error:
        reason = str(error)
    else:
        return False
    assert str(path) in reason
    assert "\n" not in reason
    return True


def structure(path: Path) -> Sequence[int]:
    """Return the positions of the bytes outside tensors: those of the zip format and of the pickle."""
    data = path.read_bytes()
    places = set(range(len(data)))
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if "/data/" in info.filename:
                header = data[info.header_offset :]
                start = info.header_offset + 30 + header[26] + header[28]  # fixed part, name, padding
                places -= set(range(start, start + info.file_size))
    return sorted(places)


def flip(path: Path, outside: Path, trials: int) -> None:
    """Flip one to eight bytes, in every second trial outside tensors only, with and without a manifest."""
    draw = random.Random(0)
    data, original, places = path.read_bytes(), checkpoint_verification.read_checkpoint(path), structure(path)
    accepted = 0
    for trial in range(trials):
        damaged = bytearray(data)
        for place in draw.sample(places if trial % 2 else range(len(data)), draw.randint(1, 8)):
            damaged[place] ^= draw.randrange(1, 256)
        path.write_bytes(damaged)
        assert refused(path), f"trial {trial}: the manifest's digest was not compared"
        outside.write_bytes(damaged)
        if not refused(outside):
            accepted += 1
            assert_same(checkpoint_verification.read_checkpoint(outside), original, f"trial {trial}")
    assert accepted < trials / 2, "a file that is in no manifest has unused bytes, but few"


def cut(data: bytes, lengths: Iterable[int], *paths: Path) -> None:
    """Check that the file, cut off at each length, is refused."""
    for length in lengths:
        for path in paths:
            path.write_bytes(data[:length])
            assert refused(path), f"{path.name} with {length} of {len(data)} bytes"


def test_flipped_bytes_are_refused_or_change_no_value(small: Path, outside: Path) -> None:
    flip(small, outside, 200)


@pytest.mark.slow
def test_flipped_bytes_are_refused_or_change_no_value_however_often(small: Path, outside: Path) -> None:
    flip(small, outside, 10 * TRIALS)


def test_a_file_cut_at_any_length_is_refused(small: Path, outside: Path) -> None:
    data = small.read_bytes()
    cut(data, {*range(0, len(data), 199), *range(32), *range(len(data) - 128, len(data))}, small, outside)


@pytest.mark.slow
def test_a_file_cut_at_every_length_is_refused(small: Path, outside: Path) -> None:
    data = small.read_bytes()
    cut(data, range(len(data)), outside)


@pytest.mark.slow
def test_a_whole_checkpoint_cut_at_every_kibibyte_is_refused(tmp_path: Path, outside: Path) -> None:
    weights = {f"network.{name}": value for name, value in SimpleCNN().state_dict().items()}
    path = run_folders.create(tmp_path).checkpoints / "epoch=00.ckpt"
    DurableCheckpointIO().save_checkpoint({"state_dict": weights, "epoch": 0, "global_step": 7}, path)
    data = path.read_bytes()
    cut(data, {*range(0, len(data), 1024), *range(len(data) - 1024, len(data))}, path, outside)


def test_a_tensor_marked_as_a_folder_is_refused(small: Path, outside: Path) -> None:
    """No checksum covers this bit; if it is flipped, torch returns a tensor of uninitialised memory."""
    data = bytearray(small.read_bytes())
    entry = data.index(b"PK\1\2")
    while b"/data/" not in data[entry : entry + 80]:
        entry = data.index(b"PK\1\2", entry + 4)
    data[entry + 38] ^= 0x10
    outside.write_bytes(data)
    assert refused(outside)


def forge(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace the pickle inside a checkpoint together with its checksum, as an attack would."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("/data.pkl") else data)


def mutate_pickles(path: Path, outside: Path, trials: int) -> None:
    draw = random.Random(0)

    def change(data: bytes) -> bytes:
        mutated = bytearray(data)
        for place in draw.sample(range(len(data)), draw.randint(1, 3)):
            mutated[place] = draw.randrange(256)
        return bytes(mutated)

    for _ in range(trials):
        outside.write_bytes(path.read_bytes())
        forge(outside, change)
        if refused(outside):
            continue
        checkpoint = checkpoint_verification.read_checkpoint(outside)
        with pytest.raises(CheckpointError):  # it contains no training state
            checkpoint_verification.check_resumable(outside, checkpoint)
        with pytest.raises(CheckpointError):  # nor all weights of a network
            checkpoint_verification.check_weights(outside, checkpoint, Classifier().state_dict())


def test_a_forged_pickle_raises_nothing_else(small: Path, outside: Path) -> None:
    mutate_pickles(small, outside, 150)


@pytest.mark.slow
def test_a_forged_pickle_raises_nothing_else_however_often(small: Path, outside: Path) -> None:
    mutate_pickles(small, outside, 10 * TRIALS)
