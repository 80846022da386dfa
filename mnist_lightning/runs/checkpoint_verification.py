"""Verify checkpoint files, read them without running code in them, check that they fit a network. No Lightning."""

import hashlib
import math
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_lightning.console import print_stderr
from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs.manifest import BEST, LAST, MANIFEST, Entry, entry_of, read_manifest

NETWORK_PREFIX = "network."
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # of Lightning's precisions

# What a checkpoint contains besides weights if training can be resumed from it: Lightning's own keys.
TRAINING_STATE = ("pytorch-lightning_version", "optimizer_states", "lr_schedulers", "callbacks", "loops")


def read_checkpoint(path: Path, *, trained: bool = True) -> dict[str, Any]:
    """Verify a checkpoint and return its content; no code in it is run.

    Args:
        path: The file.
        trained: Whether it must contain trained weights.

    Raises:
        CheckpointError: If it is corrupted, is not a Lightning checkpoint, or was saved before the first step.
    """
    _verify(path)
    checkpoint = _load(path)
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or len(_tensors(weights)) < len(weights):
        raise CheckpointError(f"{path} is not a checkpoint of this project: it has no state_dict of tensors")
    if not all(isinstance(n := checkpoint.get(name), int) and 0 <= n < 2**31 for name in ("global_step", "epoch")):
        raise CheckpointError(f"{path} was not saved by this project: it has no step and epoch")
    if trained and not checkpoint["global_step"]:
        raise CheckpointError(f"{path} contains untrained weights (no optimizer step was taken)")
    return dict(checkpoint)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint of any origin, or in a file of weights alone; no code in it is run.

    Raises:
        CheckpointError: If it is corrupted, or contains no tensors by name.
    """
    if not path.is_file() or zipfile.is_zipfile(path):  # older files are not zip archives
        _verify(path)
    content = _load(path)
    parts = [content.get("state_dict"), content, *content.values()] if isinstance(content, dict) else []
    weights = next(filter(None, (_tensors(part) for part in parts if isinstance(part, dict))), None)
    if weights is None:
        raise CheckpointError(f"{path} contains no weights: expected tensors by name, or a state_dict of them")
    return weights


def read_entries(folder: Path) -> list[Entry]:
    """Return the checkpoints of a folder, oldest first: those in the manifest or, without one, all that verify.

    Without a manifest, files that do not verify are reported on stderr.
    """
    if entries := read_manifest(folder):
        return entries
    if os.path.lexists(folder / MANIFEST):
        print_stderr(f"{folder / MANIFEST} cannot be read; relying on the checksums in each checkpoint")
    found: dict[str, Entry] = {}
    faults: list[CheckpointError] = []
    copies = (BEST, LAST)
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: (path.name in copies, path.name)):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            faults.append(error)
            continue
        digest = sha256(path)
        # If only a copy is left, it is listed under the name that its own file had.
        name = f"epoch={checkpoint['epoch']:02d}.ckpt" if path.name in copies else path.name
        found.setdefault(digest, entry_of(name, digest, checkpoint))
    if faults:
        more = f", and {len(faults) - 1} more in this folder" if faults[1:] else ""
        print_stderr(f"{faults[0]}{more}")
    return sorted(found.values(), key=lambda entry: entry.global_step)


def check_resumable(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raise a CheckpointError unless a checkpoint from this path contains the state of a training, beside weights."""
    if missing := [key for key in TRAINING_STATE if not isinstance(checkpoint.get(key), str | list | dict)]:
        raise CheckpointError(
            f"{path} can be scored but not resumed: it contains no training state ({missing[0]} is missing)"
        )


def check_weights(path: Path, checkpoint: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raise a CheckpointError unless the weights in a checkpoint from this path fit a model with this state dict.

    They do not if a tensor is missing, unknown, of another shape or kind of numbers, or not finite. The precision of
    floating-point numbers may differ.
    """
    found = checkpoint["state_dict"]
    for key in sorted(expected.keys() | found.keys()):
        if key not in found or key not in expected:
            fault = "missing" if key not in found else "unknown"
            raise CheckpointError(f"{path} is of another network: {repr(key)[1:-1]} is {fault}")
        both = (found[key], expected[key])
        given, wanted = (f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in both)
        if given != wanted and not (both[0].shape == both[1].shape and all(tensor.dtype in FLOATS for tensor in both)):
            raise CheckpointError(f"{path} is of another network: {key} is {given}, not {wanted}")
        if not found[key].isfinite().all():
            raise CheckpointError(f"{path} contains weights that are not finite: {key}")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex; "" if it cannot be read."""
    try:
        if path.is_file() and path.stat().st_size <= memory_bytes():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        pass
    return ""


def matches(path: Path, digest: str) -> bool:
    """Return whether a file exists, can be read, and has this SHA-256."""
    return digest != "" and sha256(path) == digest


def memory_bytes() -> float:
    """Return the memory of this machine; infinity if the system does not tell. No checkpoint can be larger."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def _load(path: Path) -> Any:
    """Return the content of a file of torch's, plain values and tensors only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's hints to programmers; faults raise exceptions
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # corrupted files make torch.load raise exceptions of almost any type
        raise CheckpointError(f"{path} is corrupted or contains more than plain values and tensors") from error


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    }


def _verify(path: Path) -> None:
    """Check the SHA-256 in the manifest, if any, and the checksums in the file, which torch.load does not compare."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if (size := path.stat().st_size) > (most := memory_bytes()):
        raise CheckpointError(f"{path} has {size:,} bytes, more than the {most:,.0f} of this machine's memory")
    listed = {entry.file: entry.sha256 for entry in read_manifest(path.parent)}
    if listed and path.name in (*listed, BEST, LAST) and sha256(path) not in listed.values():
        raise CheckpointError(f"{path} is corrupted: its SHA-256 differs from {MANIFEST}; pass another checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # One flipped bit marks an entry as a folder, and torch would leave the tensor's memory uninitialised.
                if info.compress_type != zipfile.ZIP_STORED or info.is_dir() or info.external_attr & 0x10:
                    raise ValueError("it has a compressed entry or a folder, which torch.save never writes")
            if broken := archive.testzip():
                raise ValueError(f"wrong checksum of {broken!r}")
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint, or is corrupted ({error})") from error
