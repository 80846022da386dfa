"""The run and the checkpoint that one command works on: found, opened, locked, and discarded if nothing was saved."""

from pathlib import Path
from typing import Any

from filelock import FileLock
from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.checkpoint_verification import read_checkpoint
from mnist_lightning.training.callbacks.exact_resume import KEY as RESUME
from mnist_lightning.training.checkpoint_io import repair
from mnist_lightning.training.distributed import is_first
from mnist_lightning.training.logger import TEST_SUFFIX, RunLogger, truncate_events
from mnist_lightning.training.trainer_options import as_list


class RunSession:
    """The state on disk that `fit`, `validate` or `test` reads and writes. Only the first process of a run writes."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.located: run_folders.Located | None = None  # the checkpoint that is resumed or evaluated, if any
        self.checkpoint: dict[str, Any] = {}  # its content
        self.run: run_folders.Run | None = None  # to write into; None if there is none, or this process is not first
        self._is_new = False
        self._lock: FileLock | None = None

    def open_checkpoint(self, reference: str, root: Path) -> None:
        """Find and read a checkpoint; `last` of a run is resumed in the run's own folders, which are locked first.

        The arguments and errors are those of `run_folders.locate`; a run that another process trains is a ConfigError.
        """
        if self.command == "fit" and is_first() and reference.split("/")[-1] == "last":
            self.run = run_folders.named(reference, root)
            self._lock = run_folders.lock(self.run)
        self.located = run_folders.locate(reference, root)
        self.checkpoint = read_checkpoint(self.located.path)

    def prepare_fit(self, root: Path) -> run_folders.Run:
        """Create and lock the folders of a new run, or check that those of a resumed run can be written."""
        if self.run is None:
            self.run, self._is_new = run_folders.create(root), True
        for folder in (self.run.logs, self.run.checkpoints):
            check_writable(folder)
        self._lock = self._lock or run_folders.lock(self.run)
        return self.run

    def prepare_evaluation(self) -> Path:
        """Return the folder for the results: the run's log folder, or that of a checkpoint outside any run."""
        assert self.located
        folder = self.located.run.logs if self.located.run else self.located.path.parent
        if is_first():
            self.run = self.located.run
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def place_of_loggers(self, options: Namespace) -> tuple[run_folders.Run | None, int | None]:
        """Return the run that the user's loggers belong to, if any, and the step from which it is resumed."""
        if self.command != "fit":
            return self.located.run if self.located else None, None
        if is_first() and not options.trainer.fast_dev_run:
            self.prepare_fit(Path(options.trainer.default_root_dir or "."))
        return self.run, self.checkpoint.get("global_step") if not self._is_new else None

    def loggers(self, options: Namespace) -> list[Logger]:
        """Return the logger that writes into the run, and those in the Trainer's options; `validate` logs nothing."""
        own = [each for each in as_list(options.logger) if not isinstance(each, bool)]
        if self.command == "validate" or options.logger is False:
            return []
        if self.run is None:
            return own
        by_step = options.val_check_interval not in (None, 1.0) or options.check_val_every_n_epoch is None
        if self.command == "test":
            return [RunLogger(self.run.logs, by_step=by_step, filename_suffix=TEST_SUFFIX), *own]
        if not self._is_new:
            truncate_events(self.run.logs, self.checkpoint.get(RESUME, {}).get("event_files", {}))
        return [RunLogger(self.run.logs, draw_graph=self._is_new, by_step=by_step), *own]

    def repair(self) -> None:
        """Update the copies and the manifest of a resumed run, in case it was killed between writing them."""
        if self.command == "fit" and self.run:
            repair(self.run.checkpoints)

    def __enter__(self) -> "RunSession":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Remove the folders of a new run that failed before it saved anything, and release the lock on the run."""
        if kind and self._is_new and self.run and not any(self.run.checkpoints.glob("*.ckpt")):
            run_folders.discard(self.run)
        if self._lock:
            self._lock.release()
