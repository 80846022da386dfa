import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from mnist_lightning import Classifier, SimpleCNN
from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs import checkpoint_verification, run_folders
from tests.runs.test_run_folders import flip_byte, make_checkpoint, save


class Payload:
    """Unpickles by calling a function, as an attack would."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def test_a_checkpoint_cannot_run_code_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, canary = tmp_path / "attack.ckpt", tmp_path / "canary"
    torch.save({"state_dict": {}, "global_step": 1, "x": Payload(canary)}, path)
    with pytest.raises(CheckpointError, match="corrupted or contains more than plain values"):
        checkpoint_verification.read_checkpoint(path)
    path.write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint_verification.read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize("listed", [True, False])
def test_a_single_flipped_byte_is_found(tmp_path: Path, listed: bool) -> None:
    path = save(run_folders.create(tmp_path), 0, val_acc=0.9, val_loss=0.1)
    if not listed:
        path = path.rename(tmp_path / "copy.ckpt")
    checkpoint_verification.read_checkpoint(path)
    flip_byte(path)
    with pytest.raises(CheckpointError, match="corrupted"):
        checkpoint_verification.read_checkpoint(path)


def test_a_file_larger_than_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.ckpt"
    with path.open("wb") as file:
        file.truncate(2**42)  # a sparse file, which takes no space on the disk
    with pytest.raises(CheckpointError, match=r"4,398,046,511,104 bytes, more than the .* of this machine's memory"):
        checkpoint_verification.read_checkpoint(path)
    assert checkpoint_verification.sha256(path) == ""


@pytest.mark.slow
def test_a_checkpoint_above_one_gibibyte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.ckpt"
    weights = {"network.weight": torch.zeros(2**30 + 1, dtype=torch.uint8)}
    torch.save({"state_dict": weights, "epoch": 0, "global_step": 1}, path)
    assert checkpoint_verification.read_checkpoint(path)["state_dict"]["network.weight"].shape == (2**30 + 1,)
    assert len(checkpoint_verification.sha256(path)) == 64


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    buffer = io.BytesIO()
    torch.save(make_checkpoint(), buffer)
    data = buffer.getvalue()
    path = tmp_path / "short.ckpt"
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else int(keep)])
    with pytest.raises(CheckpointError, match="not a checkpoint, or is corrupted"):
        checkpoint_verification.read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state_dict": None}, "no state_dict"),
        ({"global_step": 0}, "untrained"),
    ],
)
def test_a_file_that_is_not_a_trained_checkpoint_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(make_checkpoint() | change, path)
    with pytest.raises(CheckpointError, match=reason):
        checkpoint_verification.read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("network.fc3.weight", torch.zeros(1), "fc3.weight is unknown"),
        ("network.fc2.weight", None, "fc2.weight is missing"),
        ("network.fc2.weight", torch.zeros(11, 128), r"fc2.weight is \(11, 128\) torch.float32, not \(10, 128\)"),
        ("network.fc2.bias", torch.full((10,), float("nan")), "not finite"),
    ],
)
def test_weights_of_another_network_are_refused(name: str, value: torch.Tensor | None, reason: str) -> None:
    weights = {f"network.{key}": tensor for key, tensor in SimpleCNN().state_dict().items()} | {name: value}
    checkpoint = {"state_dict": {key: tensor for key, tensor in weights.items() if tensor is not None}}
    with pytest.raises(CheckpointError, match=reason):
        checkpoint_verification.check_weights(Path("x.ckpt"), checkpoint, Classifier().state_dict())


def test_a_checkpoint_without_training_state_is_not_resumed() -> None:
    state: dict[str, object] = {
        "pytorch-lightning_version": "2.6.6", "optimizer_states": [], "lr_schedulers": [], "callbacks": {}, "loops": {},
    }  # fmt: skip
    checkpoint = make_checkpoint() | state
    checkpoint_verification.check_resumable(Path("x.ckpt"), checkpoint)
    for key in state:
        without = {name: value for name, value in checkpoint.items() if name != key}
        for incomplete in (without, checkpoint | {key: None}):
            with pytest.raises(CheckpointError, match=f"x.ckpt can be scored but not resumed: .*{key} is missing"):
                checkpoint_verification.check_resumable(Path("x.ckpt"), incomplete)
