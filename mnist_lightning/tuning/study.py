"""The Optuna study of a sweep: which trial runs next, and how it ended.

The command that works on a study holds its lock until its process ends. A trial that the database still lists as
running was therefore interrupted, and the next command runs it again at once, without waiting for Optuna's heartbeats.
"""

import itertools
import os
import signal
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.cli.safe_yaml import read_config
from mnist_lightning.cli.saved_config import changes
from mnist_lightning.errors import ConfigError, DatasetError, StorageError, UserError
from mnist_lightning.training.callbacks.run_summary import show
from mnist_lightning.tuning.leaderboard import REASON, write_results
from mnist_lightning.tuning.search_space import SweepConfig
from mnist_lightning.tuning.trial import log_of, start_trial

RETRIES = "retries"  # attribute of a trial that repeats an interrupted one: the number of that one
SAVING_S = 30  # how long a terminated trial may take to save
BUSY_S = 60  # how long one process waits while another writes to the database
# The errors that every other trial would end with too, by exit code: they end the sweep.
FATAL: dict[int, type[UserError]] = {error.exit_code: error for error in (ConfigError, DatasetError, StorageError)}


def run_sweep(config: SweepConfig, workers: int) -> int:
    """Run the trials that are left and write the results; return the exit code.

    Raises:
        ConfigError: If another command works on the study, or it was started with other options.
        StorageError: If the folder or the database cannot be used.
        UserError: If a trial ended with an error that every other trial would end with too.
    """
    check_writable(config.folder)
    database = config.folder / "study.db"
    try:
        with FileLock(config.folder / ".lock", timeout=0):
            study = _open_study(config, database)
            _run_trials(study, config, workers)
            return write_results(_counted(study), study, config)
    except Timeout:
        raise ConfigError(f"another command works on {config.folder}; use --workers for parallel trials") from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise StorageError(f"{database} cannot be used as a study: {str(error).splitlines()[0]}") from error


def _open_study(config: SweepConfig, database: Path) -> optuna.Study:
    """Open the study or create it, and queue its interrupted trials again."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=config.study.name,
        storage=f"sqlite:///{database}?timeout={BUSY_S}",
        direction="maximize" if config.study.metric == "val_acc" else "minimize",
        pruner=config.pruner,
        load_if_exists=True,
    )
    # What all trials of a study must share for their scores to be comparable.
    options = {
        "study": {"metric": config.study.metric, "seed": config.study.seed},
        "fit": dict(config.fit),
        "config": read_config(Path(config.fit["config"])) if "config" in config.fit else {},
        "space": {name: str(distribution) for name, distribution in config.space.items()},
    }
    for change in changes(study.user_attrs.get("options", options), options):
        raise ConfigError(
            f"{config.folder} contains a study with {change.name} {change.old}, not {change.new}; "
            "choose another study.name"
        )
    study.set_user_attr("options", options)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.enqueue_trial(trial.params, user_attrs={RETRIES: trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have started, without those that were interrupted and are run again."""
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get(RETRIES) for trial in trials}
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.number not in retried]


def _run_trials(study: optuna.Study, config: SweepConfig, workers: int) -> None:
    """Run the trials that are left; an interruption or a fatal error terminates those under way."""
    (config.folder / "trials").mkdir(exist_ok=True)
    deadline_s = time.monotonic() + 60 * (config.study.max_minutes or float("inf"))
    threads = max(1, torch.get_num_threads() // workers)
    places = iter(range(len(_counted(study)), config.study.trials))  # among the trials that count
    running: dict[int, tuple[BaseProcess, optuna.Trial]] = {}  # by the sentinel of the process
    try:
        while True:
            for place in itertools.islice(places, workers - len(running) if time.monotonic() < deadline_s else 0):
                # A sampler for each trial, so that its draws do not depend on how often the sweep was interrupted.
                seed = int(np.random.SeedSequence([config.study.seed, place]).generate_state(1)[0])
                study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
                trial = study.ask(dict(config.space))
                params = ", ".join(f"{name} {value}" for name, value in trial.params.items())
                print(f"trial {trial.number} started: {params}", flush=True)
                process = start_trial(trial, config, threads, gpu_of(place))
                running[process.sentinel] = process, trial
            if not running:
                return
            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                process, trial = running.pop(sentinel)
                process.join()
                _record_end(study, config, trial, process.exitcode or 0)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join(SAVING_S)
            process.kill()


def _record_end(study: optuna.Study, config: SweepConfig, trial: optuna.Trial, exit_code: int) -> None:
    """Record how a trial ended; raise an error that ends the sweep."""
    number, log = trial.number, log_of(trial, config)
    if exit_code:
        reason = log.read_text(errors="replace").rstrip().split("\n")[-1]
        reason = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else reason.removeprefix("error: ")
        if exit_code in FATAL:
            raise FATAL[exit_code](f"trial {number}: {reason}")
        trial.set_user_attr(REASON, reason)
        study.tell(trial, state=TrialState.FAIL)
        print(f"trial {number} failed: {reason}", flush=True)
        return
    recorded = study.get_trials(deepcopy=False)[number]
    if not recorded.intermediate_values:
        raise ConfigError(f"trial {number} did not validate; its output is in {log}")
    score = config.best(recorded.intermediate_values.values())
    pruned = recorded.user_attrs.get(REASON)
    study.tell(trial, None if pruned else score, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    print(f"trial {number} {pruned or 'done'}: {config.study.metric} {show(config.study.metric, score)}", flush=True)


def gpu_of(place: int) -> str | None:
    """Return the value of `CUDA_VISIBLE_DEVICES` for a trial: trials take turns on several GPUs."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return visible.split(",")[place % count] if count > 1 else None
