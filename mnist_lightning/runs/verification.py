"""One checkpoint file: verify it, read it without running anything in it, and see whether it fits. No Lightning."""

import hashlib
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs.manifest import BEST, LAST, MANIFEST, read_manifest

NETWORK_PREFIX = "network."
MAX_CHECKPOINT_BYTES = 2**30  # two hundred times what SimpleCNN needs; what is larger is not ours

# What torch.load raises on damaged bytes, found by damaging bytes.
LOAD_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)

# What a checkpoint has besides its weights when a training can go on from it: keys of Lightning's.
TRAINING_STATE = {
    "pytorch-lightning_version": str,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": int}}}},
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Verify a checkpoint and return its content; nothing in it can run code.

    Raises:
        CheckpointError: If it is damaged, is not a Lightning checkpoint, or was saved before the first step.
    """
    _verify(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice is for programmers; what is wrong, it raises
            checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise CheckpointError(f"{path} is damaged or holds more than plain values and tensors") from error
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
        for name, value in weights.items()
    ):
        raise CheckpointError(f"{path} is not a checkpoint of this project: it has no state_dict of tensors")
    if not all(isinstance(n := checkpoint.get(name), int) and 0 <= n < 2**31 for name in ("global_step", "epoch")):
        raise CheckpointError(f"{path} was not saved by this project: it does not say at which step and epoch")
    if not checkpoint["global_step"]:
        raise CheckpointError(f"{path} holds untrained weights (no optimizer step was taken)")
    return dict(checkpoint)


def check_resumable(path: Path, checkpoint: Mapping[str, Any], form: Mapping[str, Any] = TRAINING_STATE) -> None:
    """Check that a checkpoint holds a training's state, and not just weights.

    Args:
        path: Named in the error.
        checkpoint: What `read_checkpoint` returned.
        form: What it has to hold: types, or tensors of the same shape, by their keys in nested dictionaries.

    Raises:
        CheckpointError: If a part is missing or is something else.
    """
    if fault := _misfit(checkpoint, form):
        raise CheckpointError(f"{path} can be scored but not resumed: it holds no state of this training ({fault})")


def form_of(example: Any) -> Any:
    """Return the form of an example, as `check_resumable` takes it; None in the example stands for anything.

    >>> form_of({"steps": 3, "best": {"score": None}})
    {'steps': <class 'int'>, 'best': {'score': <class 'object'>}}
    """
    if isinstance(example, dict):
        return {key: form_of(value) for key, value in example.items()}
    return object if example is None else example if isinstance(example, Tensor) else type(example)


def _misfit(value: Any, form: Any, name: str = "it") -> str:
    """Return where a value first departs from a form, or nothing."""
    if isinstance(form, Tensor):
        return "" if isinstance(value, Tensor) and value.shape == form.shape else f"{name} is no such tensor"
    parts = form if isinstance(form, Mapping) else {}
    if not isinstance(value, dict if form is parts else form):
        return f"{name} is {type(value).__name__}"
    faults = (_misfit(value[key], part, key) if key in value else f"no {key}" for key, part in parts.items())
    return next(filter(None, faults), "")


def check_weights(path: Path, checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Check that a checkpoint's network fits.

    Args:
        path: Named in the error.
        checkpoint: What `read_checkpoint` returned.
        expected: The state dict of the network, without prefix.

    Raises:
        CheckpointError: If a tensor is missing, left over, of another shape, or not finite.
    """
    found = checkpoint["state_dict"]
    expected = {NETWORK_PREFIX + key: value for key, value in expected.items()}
    for key in sorted(expected.keys() | found.keys()):
        if key not in found or key not in expected:
            where = "is missing in it" if key not in found else "is unknown here"
            raise CheckpointError(f"{path} is of another network: {repr(key)[1:-1]} {where}")
        if found[key].shape != expected[key].shape:
            raise CheckpointError(
                f"{path} is of another network: {key} is {tuple(found[key].shape)}, not {tuple(expected[key].shape)}"
            )
        if found[key].dtype != expected[key].dtype:
            raise CheckpointError(f"{path} is of another network: {key} is {found[key].dtype}")
        if not found[key].isfinite().all():
            raise CheckpointError(f"{path} holds weights that are not finite: {key}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; nothing where there is no file that can be read."""
    try:
        if path.is_file() and path.stat().st_size <= MAX_CHECKPOINT_BYTES:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        pass
    return ""


def matches(path: Path, digest: str) -> bool:
    """Tell whether a file is there, readable, and has this SHA-256."""
    return digest != "" and sha256(path) == digest


def _verify(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    size = path.stat().st_size
    if size > MAX_CHECKPOINT_BYTES:
        raise CheckpointError(f"{path} has {size:,} bytes; more than {MAX_CHECKPOINT_BYTES:,} are not read")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} cannot be read: permission denied")
    listed = {entry.file: entry.sha256 for entry in read_manifest(path.parent)}
    ours = path.name in (*listed, BEST, LAST)
    if listed and ours and sha256(path) not in listed.values():
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}; pass another checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CheckpointError(f"{path} is compressed, which torch.save never does; refused")
            if any(info.is_dir() or info.external_attr & 0x10 for info in archive.infolist()):
                # Marked as a folder, by one flipped bit: torch would leave the tensor's memory as it found it.
                raise CheckpointError(f"{path} is damaged: it holds folders, which torch.save never writes")
            # torch.load does not compare these checksums itself.
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint, or a damaged one ({error})") from error
    if broken:
        raise CheckpointError(f"{path} is damaged: checksum of {broken!r}")
