"""Run folders on disk: create, find and lock a run, and find its best and last checkpoint. No Lightning.

A run has one number and two folders, `lightning_logs/version_7` and `checkpoints/version_7`. The manifest beside the
checkpoints lists the SHA-256 of each; a file that does not match is corrupted and is never read.
"""

import contextlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_lightning import atomic_write
from mnist_lightning.console import print_stderr
from mnist_lightning.errors import CheckpointError, ConfigError, StorageError
from mnist_lightning.runs.checkpoint_verification import matches, read_entries
from mnist_lightning.runs.manifest import BEST, LAST, Entry, by_rank

LOGS, CHECKPOINTS = "lightning_logs", "checkpoints"
VERSION = "version_(0|[1-9][0-9]{0,17})"  # the name of a run's folders
REFERENCE = f"(?:{VERSION}/)?(?:best|last)"  # a reference to a checkpoint of a run


@dataclass(frozen=True)
class Run:
    """One training run and its two folders."""

    root: Path  # contains `lightning_logs` and `checkpoints`
    version: int  # number of the run, from 0

    @property
    def name(self) -> str:
        """The name of both folders."""
        return f"version_{self.version}"

    @property
    def logs(self) -> Path:
        """The folder of the event files, the config and the test result."""
        return self.root / LOGS / self.name

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints and their manifest."""
        return self.root / CHECKPOINTS / self.name

    def entries(self) -> list[Entry]:
        """Return the run's checkpoints, oldest first."""
        return read_entries(self.checkpoints)

    def is_newest(self) -> bool:
        """Return whether `best` and `last` without a version mean this run."""
        return _newest(self.root) == self

    def best_entry(self) -> Entry | None:
        """Return the entry with the best validation score, with what is monitored now; None without validation."""
        entries = self.entries()
        newest = max(entries, key=lambda entry: entry.global_step, default=None)
        ranked = by_rank(entries)
        return replace(ranked[0], monitor=newest.monitor, mode=newest.mode) if newest and ranked else None

    def best(self) -> Path:
        """Return the verified checkpoint with the best validation score; without validation, the last one.

        If there is none, or it is corrupted, that is a CheckpointError.
        """
        entries = self.entries()
        ranked = by_rank(entries)
        if not ranked:
            return self._last(entries)
        if self._is_corrupted(BEST, ranked):
            ranked = ranked[:1]  # only its copy may replace it: the next best is another result
        for entry in ranked:
            if path := self._verified(BEST, entry):
                return path
            if (self.checkpoints / entry.file).exists():
                break  # corrupted; an entry without a file is of a save that was interrupted
        raise CheckpointError(
            f"{self.name}: both copies of the best checkpoint are missing or corrupted; pass another with --ckpt_path"
        )

    def last(self) -> Path:
        """Return the verified checkpoint with the most steps; falls back to older ones if newer ones are corrupted.

        If none is left, that is a CheckpointError.
        """
        return self._last(self.entries())

    def _last(self, entries: list[Entry]) -> Path:
        self._is_corrupted(LAST, entries)
        for entry in sorted(entries, key=lambda entry: -entry.global_step):
            if path := self._verified(LAST, entry):
                return path
            self._is_corrupted(entry.file, [entry])
        raise CheckpointError(
            f"{self.name} in {self.root.resolve()} has no checkpoint that verifies; "
            "pass that of another run with --ckpt_path, or train one with fit"
        )

    def _verified(self, copy: str, entry: Entry) -> Path | None:
        """Return a file that verifies as the checkpoint of an entry: `best.ckpt` or `last.ckpt`, or its own file."""
        paths = (self.checkpoints / copy, self.checkpoints / entry.file)
        return next((path for path in paths if matches(path, entry.sha256)), None)

    def _is_corrupted(self, name: str, entries: list[Entry]) -> bool:
        """Return whether a file exists and is not the checkpoint of any of these entries; report it if so."""
        path = self.checkpoints / name
        is_corrupted = path.exists() and len(entries) > 0 and not any(matches(path, e.sha256) for e in entries)
        if is_corrupted:
            print_stderr(f"{path} is corrupted; trying other checkpoints of the run")
        return is_corrupted


@dataclass(frozen=True)
class Located:
    """A checkpoint file."""

    path: Path
    run: Run | None  # None for a file outside any run
    kind: str = ""  # `best` (with validation) or `last` of the run; for any other file its name, without `.ckpt`


def create(root: Path) -> Run:
    """Reserve the next free number and create both folders; safe if several processes start at once.

    Raises:
        StorageError: If a folder cannot be created or written.
    """
    while True:
        version = next((run.version + 1 for run in all_runs(root)), 0)
        run = Run(root, version)
        try:
            for folder in (run.checkpoints, run.logs):
                folder.parent.mkdir(parents=True, exist_ok=True)
            run.checkpoints.mkdir()  # only one process succeeds
            run.logs.mkdir()
        except FileExistsError as error:
            if not Path(error.filename).is_dir():
                raise StorageError(f"{Path(error.filename).resolve()} is not a folder") from None
        except OSError as error:
            raise StorageError(f"cannot create {error.filename}: {error.strerror}") from error
        else:
            return run


def lock(run: Run) -> FileLock:
    """Keep other processes from training in a run's folders until the lock is released or this process ends.

    If another process trains there, that is a ConfigError.
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
    """Remove a run's folders, and their parent folders if these are then empty."""
    for folder in (run.logs, run.checkpoints):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def all_runs(root: Path) -> list[Run]:
    """Return the runs, those without checkpoints included, highest number first."""
    folders = [folder for kind in (LOGS, CHECKPOINTS) if (root / kind).is_dir() for folder in (root / kind).iterdir()]
    versions = {int(match[1]) for folder in folders if (match := re.fullmatch(VERSION, folder.name))}
    return [Run(root, version) for version in sorted(versions, reverse=True)]


def named(reference: str, root: Path) -> Run:
    """Return the run that a reference such as `version_3/best` or `last` means; if there is none, a CheckpointError.

    `best` and `last` mean the newest run: of those that have saved something, the one with the highest number.
    """
    match = re.fullmatch(REFERENCE, reference)
    run = Run(root, int(match[1])) if match and match[1] else _newest(root)
    if run is None or not run.checkpoints.is_dir():
        wanted = run.name if run else "run with a checkpoint"
        raise CheckpointError(f"there is no {wanted} in {root.resolve() / CHECKPOINTS}; train one with fit")
    return run


def locate(reference: str, root: Path) -> Located:
    """Find a checkpoint.

    Args:
        reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or the path of a file.
        root: Folder that contains `lightning_logs` and `checkpoints`.

    Raises:
        CheckpointError: If there is no such run or file, or it is corrupted.
    """
    run: Run | None
    if re.fullmatch(REFERENCE, reference):
        run = named(reference, root)
        name = reference.split("/")[-1]
        path = run.best() if name == "best" else run.last()
    elif os.path.isfile(reference):  # unlike Path.is_file, also if the name is too long
        path = Path(reference)
        run, name = run_of(path), path.stem
    else:
        raise CheckpointError(
            f"{reference}: no such checkpoint file; expected a local file, best, last or version_3/best"
        )
    is_last = name == "best" and run and run.best_entry() is None
    return Located(path, run, "last" if is_last else name)


def _newest(root: Path) -> Run | None:
    return next((run for run in all_runs(root) if any(run.checkpoints.glob("*.ckpt"))), None)


def run_of(path: Path) -> Run | None:
    """Return the run whose folder contains a checkpoint, or None."""
    folder = path.resolve().parent
    match = re.fullmatch(VERSION, folder.name)
    return Run(folder.parent.parent, int(match[1])) if match and folder.parent.name == CHECKPOINTS else None
