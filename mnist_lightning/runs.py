"""Run folders on disk: create one, find one, find and read its checkpoints. No Lightning.

A run has one number and two folders, `lightning_logs/version_7` and `checkpoints/version_7`. The manifest beside the
checkpoints lists each with its SHA-256; a file that does not match is damaged and is never read.
"""

import contextlib
import hashlib
import json
import math
import os
import pickle
import re
import shutil
import struct
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

from mnist_lightning.durable import remove_parts
from mnist_lightning.errors import CheckpointError, ConfigError, StorageError
from mnist_lightning.terminal import tell

LOGS, CHECKPOINTS = "lightning_logs", "checkpoints"
VERSION = "version_(0|[1-9][0-9]{0,17})"  # the name of a run's folders
REFERENCE = f"(?:{VERSION}/)?(?:best|last)"  # what names a run's checkpoint
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


# What a checkpoint has besides its weights when a training can go on from it: keys of Lightning's.
TRAINING_STATE = {
    "pytorch-lightning_version": str,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": int}}}},
}


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
        """Return the run's checkpoints, oldest first."""
        return read_entries(self.checkpoints)

    def best_entry(self) -> Entry | None:
        """Return the entry that validation chose; None without validation."""
        return next(iter(by_rank(self.entries())), None)

    def best(self) -> Path:
        """Return the verified checkpoint that validation chose, or the last one of a run without validation.

        Raises:
            CheckpointError: If there is none, or it is damaged.
        """
        best, entries = self.checkpoints / BEST, self.entries()
        ranked = by_rank(entries)
        if not ranked:
            return self._last(entries, asked_for="best")
        if best.exists() and not any(matches(best, entry.sha256) for entry in ranked):
            tell(f"{best} is damaged")
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
        return self._last(self.entries(), asked_for="last")

    def _last(self, entries: list[Entry], *, asked_for: str) -> Path:
        entries = sorted(entries, key=lambda entry: -entry.global_step)
        last = self.checkpoints / LAST
        if entries and last.exists() and not any(matches(last, entry.sha256) for entry in entries):
            tell(f"{last} is damaged; using an older copy")
        for entry in entries:
            for path in (last, self.checkpoints / entry.file):
                if matches(path, entry.sha256):
                    return path
                if path != last and path.exists():
                    tell(f"{path} is damaged; using an older checkpoint")
        others = (run for run in all_runs(self.root) if run.version != self.version and run.entries())
        other = next(others, None)
        advice = f"{other.name} has: --ckpt_path {other.name}/{asked_for}" if other else "train one with fit"
        none = "no checkpoint that verifies" if entries else "no checkpoint"
        raise CheckpointError(f"{self.name} in {self.root.resolve()} has {none}; {advice}")


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
    for folder in (run.logs, run.checkpoints):
        remove_parts(folder)
    return guard


def discard(run: Run) -> None:
    """Remove a run's folders, and those they stand in where nothing else is left there."""
    for folder in (run.logs, run.checkpoints):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def all_runs(root: Path) -> list[Run]:
    """Return the runs, newest first: the one with the highest number."""
    folders = [folder for kind in (LOGS, CHECKPOINTS) if (root / kind).is_dir() for folder in (root / kind).iterdir()]
    versions = {int(match[1]) for folder in folders if (match := re.fullmatch(VERSION, folder.name))}
    return [Run(root, version) for version in sorted(versions, reverse=True)]


def newest(root: Path) -> Run | None:
    """Return the run with the highest number, or None."""
    return next(iter(all_runs(root)), None)


def named(reference: str, root: Path) -> Run:
    """Return the run that `best`, `last`, `version_3/best` or `version_3/last` speaks of.

    Raises:
        CheckpointError: If there is no such run.
    """
    match = re.fullmatch(REFERENCE, reference)
    run = Run(root, int(match[1])) if match and match[1] else newest(root)
    if run is None or not run.checkpoints.is_dir():
        wanted = run.name if run else "run"
        raise CheckpointError(f"there is no {wanted} in {root.resolve() / CHECKPOINTS}; train one with fit")
    return run


def locate(reference: str, root: Path) -> Located:
    """Find a checkpoint.

    Args:
        reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or the path of a file.
        root: Folder that holds `lightning_logs` and `checkpoints`.

    Raises:
        CheckpointError: If there is no such run or file, or it is damaged.
    """
    if re.fullmatch(REFERENCE, reference):
        run = named(reference, root)
        return Located(run.best() if reference.endswith("best") else run.last(), run)
    if "://" in reference or reference.split(":")[0] == "registry":
        raise CheckpointError(f"{reference}: only local checkpoint files are read; download it first")
    path = Path(reference)
    if not os.path.isfile(path):  # unlike path.is_file(), also where the name is too long
        raise CheckpointError(f"{reference}: no such checkpoint file; best, last and version_3/best are understood too")
    return Located(path, run_of(path))


def run_of(path: Path) -> Run | None:
    """Return the run in whose folder a checkpoint lies, or None."""
    folder = path.resolve().parent
    match = re.fullmatch(VERSION, folder.name)
    return Run(folder.parent.parent, int(match[1])) if match and folder.parent.name == CHECKPOINTS else None


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


def read_entries(folder: Path) -> list[Entry]:
    """Return the checkpoints of a folder, oldest first: as listed or, without a manifest, as the files themselves say.

    A file that does not verify is left out, and named.
    """
    if listed := read_manifest(folder):
        return listed
    if os.path.lexists(folder / MANIFEST):
        tell(f"{folder / MANIFEST} cannot be read; going by each checkpoint's own checksums")
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
        # A copy may be the only one left; the name it is listed under is then nobody's.
        name = f"epoch={checkpoint['epoch']:02d}.ckpt" if path.name in copies else path.name
        found.setdefault(digest, entry_of(name, digest, checkpoint))
    if faults:
        more = f", and {len(faults) - 1} more in this folder" if faults[1:] else ""
        tell(f"{faults[0]}{more}")
    return sorted(found.values(), key=lambda entry: entry.global_step)


def entry_of(file: str, digest: str, checkpoint: Mapping[str, Any]) -> Entry:
    """Return the manifest's entry for a checkpoint of this name, digest and content."""
    metrics = checkpoint.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        metrics = {}
    return Entry(file, digest, checkpoint["epoch"], checkpoint["global_step"], metrics)


def read_manifest(folder: Path) -> list[Entry]:
    """Return the manifest's entries, oldest first; nothing when the folder has none or it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        entries = [Entry(**entry) for entry in json.loads(path.read_text())["checkpoints"]]
        for entry in entries:
            texts, numbers = (entry.file, entry.sha256), (entry.epoch, entry.global_step, *entry.metrics.values())
            if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in numbers):
                return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return entries


def by_rank(entries: list[Entry]) -> list[Entry]:
    """Return the validated entries: highest `val_acc` first, of equals the lower `val_loss`, of equals the older."""

    def rank(entry: Entry) -> tuple[float, float]:
        val_acc, val_loss = entry.metrics["val_acc"], entry.metrics.get("val_loss", 0.0)
        return -val_acc, val_loss if math.isfinite(val_loss) else math.inf

    return sorted((entry for entry in entries if "val_acc" in entry.metrics), key=rank)


def manifest_text(entries: list[Entry]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1) + "\n"


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
