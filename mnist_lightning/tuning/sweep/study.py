"""The study on disk: which trial comes next, and which was cut off. Knows Optuna and locks, no training.

Every command that works on a study holds a lock of its own, which the system releases when the process is gone, however
it went. So a trial that was cut off is known at once, where Optuna's heartbeat would wait to be sure; it is marked as
failed, and put back in the queue by Optuna's `enqueue_trial`.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.cli.changes import changes
from mnist_lightning.cli.config import read_config
from mnist_lightning.errors import ConfigError, StorageError
from mnist_lightning.tuning.sweep.plan import Plan

DATABASE = "study.db"
BUSY_S = 60  # how long a command waits while others write
# What a trial's attributes are called in the database.
WORKER, AGAIN, RUN, REASON = "worker", "again", "run", "reason"


def open_study(plan: Plan) -> optuna.Study:
    """Open the study in its folder, or begin it.

    Raises:
        ConfigError: If it was begun with another space or other options.
        StorageError: If the folder cannot be written, or its database not be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_writable(plan.folder)
    pruner = optuna.pruners.MedianPruner(plan.pruner.startup_trials, plan.pruner.warmup_epochs)
    database = plan.folder / DATABASE
    with _one_at_a_time(plan.folder):
        try:
            study = optuna.create_study(
                study_name=plan.study.name,
                storage=RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": BUSY_S}}),
                direction="maximize" if plan.study.metric == "val_acc" else "minimize",
                pruner=pruner if plan.pruner.enabled else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            before, now = study.user_attrs.get("searched"), _searched(plan)
            if before is None:
                study.set_user_attr("searched", now)
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            raise StorageError(f"{database} cannot be read as a study: {str(error).splitlines()[0]}") from error
    if before and (changed := changes(before, now)):
        first = changed[0]
        raise ConfigError(
            f"{plan.folder} holds a study with {first.name} {first.old}, not {first.new}; "
            "give this one another study.name"
        )
    return study


@contextmanager
def worker(folder: Path) -> Iterator[str]:
    """Hold the lock of a command that works on a study; yields the command's name."""
    name = uuid.uuid4().hex
    path = _lock_of(folder, name)
    with FileLock(path):
        yield name
    path.unlink(missing_ok=True)


def next_trial(study: optuna.Study, plan: Plan, worker_name: str) -> Trial | None:
    """Begin the next trial; None when as many as were asked for have ended or are under way."""
    with _one_at_a_time(plan.folder):
        _put_back_what_was_cut_off(study, plan.folder, worker_name)
        if len(counted(study)) >= plan.study.trials:
            return None
        number = len(study.get_trials(deepcopy=False))
        # Made anew, so that what is drawn depends on the trial and not on how often the command was typed.
        seed = int(np.random.SeedSequence([plan.study.seed, number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        trial = study.ask(dict(plan.space))
        trial.set_user_attr(WORKER, worker_name)
        return trial


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have ended or are under way, without those that were cut off and are made again."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN) for trial in trials}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in again]


def _put_back_what_was_cut_off(study: optuna.Study, folder: Path, worker_name: str) -> None:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(WORKER)
        if owner == worker_name or (owner and _is_alive(folder, owner)):
            continue
        study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        study.tell(trial.number, state=TrialState.FAIL)


def _is_alive(folder: Path, owner: str) -> bool:
    path = _lock_of(folder, owner)
    try:
        with FileLock(path, timeout=0):
            pass
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    return False


def _lock_of(folder: Path, worker_name: str) -> Path:
    return folder / f".{worker_name}.lock"


def _one_at_a_time(folder: Path) -> FileLock:
    return FileLock(folder / ".lock")


def _searched(plan: Plan) -> dict[str, Any]:
    """Return what must stay the same for trials to be compared."""
    config = plan.fit.get("config")
    return {
        "study": {"metric": plan.study.metric, "seed": plan.study.seed},
        "fit": dict(plan.fit),
        "config": read_config(Path(config)) if config else {},
        "space": {name: json.loads(distribution_to_json(entry))["attributes"] for name, entry in plan.space.items()},
    }
