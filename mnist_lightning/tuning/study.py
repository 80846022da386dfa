"""The Optuna study of a sweep: which trial runs next, how it runs and how it ended.

Each trial is a `fit` in a process of its own, so that a crash or a lack of memory costs a single trial.

A command holds a trial's lock while it runs the trial, and the operating system releases the lock when the command is
killed. A trial that the database lists as running while its lock is free was therefore interrupted. It does not count,
and the next trial takes its place, with the same seed for the sampler.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.cli import main
from mnist_lightning.cli.safe_yaml import read_config
from mnist_lightning.cli.saved_config import changes
from mnist_lightning.errors import ConfigError, DatasetError, StorageError, UserError
from mnist_lightning.training.callbacks.run_summary import show
from mnist_lightning.training.monitor import require_logged
from mnist_lightning.tuning.leaderboard import REASON, RUN, write_results
from mnist_lightning.tuning.search_space import SweepConfig

PRUNED = "pruned"  # attribute of a pruned trial in the database: its last epoch
SAVING_S = 30  # how long a terminated trial may take to save
BUSY_S = 60  # how long one process waits while another writes to the database
# The errors that every other trial would end with too, by exit code: they end the sweep.
FATAL: dict[int, type[UserError]] = {error.exit_code: error for error in (ConfigError, DatasetError, StorageError)}


def run_sweep(config: SweepConfig) -> int:
    """Run the trials that are left and write the results; return the exit code.

    An error with which every other trial would end, too, is raised; so are the errors of the folder and the database.
    """
    check_writable(config.folder)
    (config.folder / "trials").mkdir(exist_ok=True)
    deadline_s = time.monotonic() + 60 * (config.study.max_minutes or float("inf"))
    lock = FileLock(config.folder / ".lock")  # one command at a time chooses a trial or writes the results
    try:
        with lock:
            study = _open_study(config)
        while time.monotonic() < deadline_s:
            with lock:
                place = len(_counted(study, config))
                if place >= config.study.trials:
                    break
                # A sampler for each trial, so that its draws do not depend on how often the sweep was interrupted.
                seed = int(np.random.SeedSequence([config.study.seed, place]).generate_state(1)[0])
                study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
                trial = study.ask(dict(config.space))
                running = _lock_of(trial.number, config).acquire()
            with running:
                params = ", ".join(f"{name} {value}" for name, value in trial.params.items())
                print(f"trial {trial.number} started: {params}", flush=True)
                log = config.folder / "trials" / f"{trial.number}.txt"
                _record_end(study, config, trial, _run_trial(trial, config, log), log)
        with lock:
            return write_results(_counted(study, config), study, config)
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"{config.folder / 'study.db'} cannot be used as a study: {reason}") from error


def _open_study(config: SweepConfig) -> optuna.Study:
    """Open the study or create it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{config.folder / 'study.db'}?timeout={BUSY_S}"
    # What all trials of a study must share for their scores to be comparable.
    options = {
        "study": {"metric": config.study.metric, "seed": config.study.seed},
        "fit": dict(config.fit),
        "config": read_config(Path(config.fit["config"])) if "config" in config.fit else {},
        "space": {name: str(distribution) for name, distribution in config.space.items()},
    }
    study = optuna.create_study(
        study_name=config.study.name,
        storage=storage,
        direction="maximize" if config.study.mode == "max" else "minimize",
        pruner=config.pruner,
        load_if_exists=True,
    )
    for change in changes(study.user_attrs.get("options", options), options):
        if not _counted(study, config):  # there is nothing to compare with, for example after a mistake in the options
            optuna.delete_study(study_name=config.study.name, storage=storage)
            return _open_study(config)
        raise ConfigError(
            f"{config.folder} contains a study with {change.name} {change.old}, not {change.new}; "
            "choose another study.name"
        )
    study.set_user_attr("options", options)
    return study


def _lock_of(number: int, config: SweepConfig) -> FileLock:
    return FileLock(config.folder / "trials" / f".{number}.lock", timeout=0)


def _counted(study: optuna.Study, config: SweepConfig) -> list[FrozenTrial]:
    """Mark interrupted trials as failed, without a reason; return the other trials."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with contextlib.suppress(Timeout), _lock_of(trial.number, config):
            study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.FAIL or REASON in trial.user_attrs]


def _record_end(study: optuna.Study, config: SweepConfig, trial: optuna.Trial, exit_code: int, log: Path) -> None:
    """Record how a trial ended; raise an error that ends the sweep."""
    number, metric = trial.number, config.study.metric
    if exit_code:
        reason = log.read_text(errors="replace").rstrip().split("\n")[-1].removeprefix("error: ")
        if exit_code in FATAL:
            raise FATAL[exit_code](f"trial {number}: {reason}")
        reason = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else reason
        trial.set_user_attr(REASON, reason)
        study.tell(trial, state=TrialState.FAIL)
        print(f"trial {number} failed: {reason}", flush=True)
        return
    recorded = study.get_trials(deepcopy=False)[number]
    if not recorded.intermediate_values:
        raise ConfigError(f"trial {number} did not validate; its output is in {log}")
    score, end = config.best(recorded.intermediate_values.values()), "done"
    if PRUNED in recorded.user_attrs:
        end = f"pruned after epoch {recorded.user_attrs[PRUNED]}"
        trial.set_user_attr(REASON, end)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score)
    print(f"trial {number} {end}: {metric} {show(metric, score)}", flush=True)


class ScoreReporter(Callback):
    """Record the run's name and each validation's score in the study; stop training after the epoch if it is pruned."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the run's name."""
        self.trial.set_user_attr(RUN, Path(trainer.checkpoint_callback.dirpath).name)  # type: ignore[union-attr]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the score; a pruned trial still finishes its epoch and saves its checkpoint."""
        if trainer.sanity_checking:
            return
        require_logged(self.metric, trainer, "study.metric")
        self.trial.report(float(trainer.callback_metrics[self.metric]), self.validations)
        self.validations += 1
        if prunes := self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, trainer.current_epoch)
        trainer.should_stop |= trainer.strategy.broadcast(prunes)


class ScoreFollower(Callback):
    """Stop together with `ScoreReporter`, in the other processes of a distributed trial."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if the first process does."""
        if not trainer.sanity_checking:
            trainer.should_stop |= trainer.strategy.broadcast(False)


def _run_trial(trial: optuna.Trial, config: SweepConfig, log: Path) -> int:
    """Run a trial, with its output in a file; return the exit code, which is negative if a signal killed it."""
    # A fork server imports torch and Lightning once and not for each trial.
    context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    context.set_forkserver_preload([__name__])
    log.touch()
    process = context.Process(target=_fit, args=(trial, config, log))
    process.start()
    try:
        process.join()
    finally:  # if the sweep is interrupted, the trial ends too
        process.terminate()
        process.join(SAVING_S)
        process.kill()
    return int(process.exitcode)


def _fit(trial: optuna.Trial, config: SweepConfig, log: Path) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the sweep alone, which then terminates this process
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    threading.Thread(target=_terminate_after_parent, daemon=True).start()
    command = config.command_line(trial.params)
    # With which Lightning starts the other processes of a distributed training.
    sys.argv = [sys.argv[0], *command, f"--trainer.callbacks+={__name__}.{ScoreFollower.__name__}"]
    sys.modules["__main__"].__spec__ = find_spec("mnist_lightning.__main__")
    main.main(command, callbacks=[ScoreReporter(trial, config.study.metric)])


def _terminate_after_parent() -> None:
    """Wait until the sweep has ended, which may have been killed; then terminate this trial."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
