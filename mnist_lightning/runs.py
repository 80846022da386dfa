"""Run folders on disk: create one, find one, find and read its checkpoints. No Lightning.

A run has one number and two folders, `lightning_logs/version_7` and `checkpoints/version_7`. The manifest beside the
checkpoints lists each with its SHA-256; a file that does not match is damaged and is never read.
"""

import hashlib
import json
import os
import pickle
import re
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from mnist_lightning.errors import CheckpointError, ConfigError, StorageError

LOGS, CHECKPOINTS = "lightning_logs", "checkpoints"
MANIFEST = "manifest.json"
BEST, LAST = "best.ckpt", "last.ckpt"
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


@dataclass(frozen=True)
class Entry:
    """A checkpoint as the manifest lists it.

    Args:
        file: Its name in the run's checkpoint folder.
        sha256: Digest of its bytes.
        epoch: Epoch it was saved in, from 0.
        global_step: Optimizer steps taken.
        metrics: Scores of its weights, such as `val_acc`; empty when it was saved in mid-epoch.
    """

    file: str
    sha256: str
    epoch: int
    global_step: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training run and its two folders.

    Args:
        root: Folder that holds `lightning_logs` and `checkpoints`.
        version: Number of the run, from 0.
    """

    root: Path
    version: int

    @property
    def name(self) -> str:
        """The name both folders have."""
        return f"version_{self.version}"

    @property
    def logs(self) -> Path:
        """Where event files, the config and the test result are."""
        return self.root / LOGS / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints and their manifest are."""
        return self.root / CHECKPOINTS / self.name

    def entries(self) -> list[Entry]:
        """Return what the manifest lists, oldest first; nothing when there is none."""
        return read_manifest(self.checkpoints)

    def best_entry(self) -> Entry | None:
        """Return the entry that validation chose; None without validation."""
        return next(iter(by_rank(self.entries())), None)

    def best(self) -> Path:
        """Return the verified checkpoint that validation chose, or the last one of a run without validation.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        best, entries = self.checkpoints / BEST, self.entries()
        if not entries and best.is_file():
            return best  # without a manifest, the file's own checksums decide when it is read
        ranked = by_rank(entries)
        if not ranked:
            return self.last()
        if best.exists() and not any(matches(best, entry.sha256) for entry in ranked):
            _say(f"{best} is damaged")
            ranked = ranked[:1]  # only its twin may take its place: the next best is another result
        for entry in ranked:
            for path in (best, self.checkpoints / entry.file):
                if matches(path, entry.sha256):
                    return path
            if (self.checkpoints / entry.file).exists():
                break  # damaged; where it does not exist, it was announced to the manifest and never came
        raise CheckpointError(f"{self.name}: the best checkpoint is gone, both copies; pass another with --ckpt_path")

    def last(self) -> Path:
        """Return the verified checkpoint with the most steps, falling back to older ones where newer are damaged.

        Raises:
            CheckpointError: If no checkpoint is left.
        """
        entries = sorted(self.entries(), key=lambda entry: -entry.global_step)
        last = self.checkpoints / LAST
        if entries and last.exists() and not any(matches(last, entry.sha256) for entry in entries):
            _say(f"{last} is damaged; using an older copy")
        for entry in entries:
            for path in (last, self.checkpoints / entry.file):
                if matches(path, entry.sha256):
                    return path
                if path != last and path.exists():
                    _say(f"{path} is damaged; using an older checkpoint")
        if not entries and last.is_file():
            return last  # no manifest: the file's own checksums decide when it is read
        raise CheckpointError(f"{self.name} in {self.root.resolve()} has no checkpoint; train one with fit")


@dataclass(frozen=True)
class Located:
    """A checkpoint file and the run it belongs to, if any."""

    path: Path
    run: Run | None


def create(root: Path) -> Run:
    """Reserve the next free number and make both folders; safe when several processes start at once.

    Raises:
        StorageError: If a folder cannot be made or written.
    """
    for kind in (LOGS, CHECKPOINTS):
        try:
            (root / kind).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise StorageError(f"{root.resolve() / kind} is not a folder") from None
        except OSError as error:
            raise StorageError(f"cannot make {error.filename}: {error.strerror}") from error
    while True:
        newest_run = newest(root)
        run = Run(root, newest_run.version + 1 if newest_run else 0)
        try:
            run.checkpoints.mkdir()  # only one process succeeds
            run.logs.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"cannot make {error.filename}: {error.strerror}") from error
        return run


def check_writable(run: Run) -> None:
    """Check that both folders of a run take files.

    Raises:
        StorageError: If one does not.
    """
    for folder in (run.logs, run.checkpoints):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StorageError(f"cannot write into {folder}: {error.strerror}") from error


def lock(run: Run) -> FileLock:
    """Keep other processes from training in a run's folders until the lock is released or this process ends.

    Raises:
        ConfigError: If another process trains there.
    """
    guard = FileLock(run.checkpoints / ".lock", timeout=0)
    try:
        guard.acquire()
    except Timeout:
        raise ConfigError(f"{run.name} is being trained by another process; wait for it, or start a new run") from None
    for part in run.checkpoints.glob(".*.part"):  # left by a process that was killed while it saved
        part.unlink()
    return guard


def newest(root: Path) -> Run | None:
    """Return the run with the highest number, or None."""
    names = [entry.name for kind in (LOGS, CHECKPOINTS) if (root / kind).is_dir() for entry in (root / kind).iterdir()]
    versions = [int(match[1]) for name in names if (match := re.fullmatch(r"version_(\d+)", name))]
    return Run(root, max(versions)) if versions else None


def locate(reference: str, root: Path) -> Located:
    """Find a checkpoint.

    Args:
        reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or the path of a file.
        root: Folder that holds `lightning_logs` and `checkpoints`.

    Raises:
        CheckpointError: If there is no such run or file, or it is damaged.
    """
    match = re.fullmatch(r"(?:version_(\d+)/)?(best|last)", reference)
    if match:
        run = Run(root, int(match[1])) if match[1] else newest(root)
        if run is None or not run.checkpoints.is_dir():
            wanted = f"version_{match[1]}" if match[1] else "run"
            raise CheckpointError(f"there is no {wanted} in {root.resolve() / CHECKPOINTS}; train one with fit")
        return Located(run.best() if match[2] == "best" else run.last(), run)
    if "://" in reference or reference.split(":")[0] == "registry":
        raise CheckpointError(f"{reference}: only local checkpoint files are read; download it first")
    path = Path(reference)
    if not os.path.isfile(path):  # unlike path.is_file(), also where the name is too long
        raise CheckpointError(f"{reference}: no such checkpoint file; best, last and version_3/best are understood too")
    return Located(path, _run_of(path))


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
    if not all(isinstance(checkpoint.get(name), int) for name in ("global_step", "epoch")):
        raise CheckpointError(f"{path} was not saved by this project: it does not say at which step and epoch")
    if not checkpoint["global_step"]:
        raise CheckpointError(f"{path} holds untrained weights (no optimizer step was taken)")
    return dict(checkpoint)


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


def read_manifest(folder: Path) -> list[Entry]:
    """Return the manifest's entries, oldest first; nothing when the folder has none or it cannot be read."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return []
    try:
        if not path.is_file():
            raise ValueError("not a file")
        entries = [Entry(**entry) for entry in json.loads(path.read_text())["checkpoints"]]
        for entry in entries:
            texts, numbers = (entry.file, entry.sha256), (entry.epoch, entry.global_step, *entry.metrics.values())
            if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in numbers):
                raise ValueError(f"{entry.file} is not listed as it should be")
        return entries
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _say(f"{folder / MANIFEST} cannot be read ({error}); going by each file's own checksums")
        return []


def by_rank(entries: list[Entry]) -> list[Entry]:
    """Return the validated entries: highest `val_acc` first, of equals the lower `val_loss`, of equals the older."""
    validated = [entry for entry in entries if "val_acc" in entry.metrics]
    return sorted(validated, key=lambda entry: (-entry.metrics["val_acc"], entry.metrics.get("val_loss", 0.0)))


def manifest_text(entries: list[Entry]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1) + "\n"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matches(path: Path, digest: str) -> bool:
    """Tell whether a file is there, readable, and has this SHA-256."""
    try:
        return path.is_file() and path.stat().st_size <= MAX_CHECKPOINT_BYTES and sha256(path) == digest
    except OSError:
        return False


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


def _run_of(path: Path) -> Run | None:
    folder = path.resolve().parent
    match = re.fullmatch(r"version_(\d+)", folder.name)
    return Run(folder.parent.parent, int(match[1])) if match and folder.parent.name == CHECKPOINTS else None


def _say(line: str) -> None:
    print(line, file=sys.stderr)
