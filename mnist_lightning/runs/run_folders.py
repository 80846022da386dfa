"""Run folders on disk: create one, find one, find and read its checkpoints. No Lightning.

A run has one number and two folders, `lightning_logs/version_7` and `checkpoints/version_7`. The manifest beside the
checkpoints lists each with its SHA-256; a file that does not match is damaged and is never read.
"""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_lightning import atomic_write
from mnist_lightning.console import print_stderr
from mnist_lightning.errors import CheckpointError, ConfigError, StorageError
from mnist_lightning.runs.manifest import BEST, LAST, MANIFEST, Entry, by_rank, entry_of, read_manifest
from mnist_lightning.runs.verification import matches, read_checkpoint, sha256

LOGS, CHECKPOINTS = "lightning_logs", "checkpoints"
VERSION = "version_(0|[1-9][0-9]{0,17})"  # the name of a run's folders
REFERENCE = f"(?:{VERSION}/)?(?:best|last)"  # what names a run's checkpoint


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
            print_stderr(f"{best} is damaged")
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
            print_stderr(f"{last} is damaged; using an older copy")
        for entry in entries:
            for path in (last, self.checkpoints / entry.file):
                if matches(path, entry.sha256):
                    return path
                if path != last and path.exists():
                    print_stderr(f"{path} is damaged; using an older checkpoint")
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
        atomic_write.check_writable(folder)


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
        atomic_write.remove_parts(folder)
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


def newest_trained(root: Path) -> Run | None:
    """Return the run with the highest number among those that have saved something, or None."""
    return next((run for run in all_runs(root) if any(run.checkpoints.glob("*.ckpt"))), None)


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


def read_entries(folder: Path) -> list[Entry]:
    """Return the checkpoints of a folder, oldest first: as listed or, without a manifest, as the files themselves say.

    A file that does not verify is left out, and named.
    """
    if listed := read_manifest(folder):
        return listed
    if os.path.lexists(folder / MANIFEST):
        print_stderr(f"{folder / MANIFEST} cannot be read; going by each checkpoint's own checksums")
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
        print_stderr(f"{faults[0]}{more}")
    return sorted(found.values(), key=lambda entry: entry.global_step)
