"""The search itself: trials at work side by side, their scores, and when one is given up."""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial, TrialState

from mnist_lightning.console import printable
from mnist_lightning.errors import ConfigError, DatasetError, StorageError, UserError
from mnist_lightning.training.callbacks.run_summary import show
from mnist_lightning.tuning.sweep import trial as trials
from mnist_lightning.tuning.sweep.plan import Plan
from mnist_lightning.tuning.sweep.study import REASON, RUN, next_trial, worker

# What one trial ends with and every other would: it ends the sweep.
FATAL: dict[int, type[UserError]] = {error.exit_code: error for error in (ConfigError, DatasetError, StorageError)}
END_S = 30  # how long a trial that is told to end may take to save


@dataclass
class Running:
    """A trial at work.

    Args:
        trial: The trial.
        process: What trains.
        connection: What it tells.
        log: What it prints.
        scores: What it told so far, by epoch.
        pruned: Whether it was given up.
    """

    trial: Trial
    process: BaseProcess
    connection: "Connection[Any, Any]"
    log: Path
    scores: dict[int, float]
    pruned: bool = False


def search(study: optuna.Study, plan: Plan, workers: int) -> None:
    """Make trials, some at a time, until there are as many as the plan asks for.

    Raises:
        ConfigError, DatasetError, StorageError: What ended a trial that would end every other.
    """
    (plan.folder / "trials").mkdir(exist_ok=True)
    limit_s = 60 * plan.study.max_minutes if plan.study.max_minutes else float("inf")
    threads, started_s = max(1, torch.get_num_threads() // workers), time.monotonic()
    running: list[Running] = []
    with worker(plan.folder) as name:
        try:
            while True:
                while len(running) < workers and time.monotonic() - started_s < limit_s:
                    if (trial := next_trial(study, plan, name)) is None:
                        break
                    running.append(_start(trial, plan, threads))
                if not running:
                    return
                for connection in wait([one.connection for one in running]):
                    one = next(one for one in running if one.connection is connection)
                    if not _hear(one, plan):
                        running.remove(one)
                        _file(one, study, plan)
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                one.process.join(END_S)
                one.process.kill()


def _start(trial: Trial, plan: Plan, threads: int) -> Running:
    log = plan.folder / "trials" / f"{trial.number}.txt"
    print(f"trial {trial.number} begins: {options_of(trial.params)}", flush=True)
    process, connection = trials.start(plan.command_line(trial.params), plan.study.metric, log, threads)
    return Running(trial, process, connection, log, {})


def _hear(one: Running, plan: Plan) -> bool:
    """Take what a trial tells; return False when it has ended."""
    try:
        said = one.connection.recv()
        if isinstance(said, str):
            one.trial.set_user_attr(RUN, said)
            return True
        if said.epoch not in one.scores:
            one.trial.report(said.value, said.epoch)
        one.scores[said.epoch] = plan.best([said.value, one.scores.get(said.epoch, said.value)])
        one.pruned = one.trial.should_prune()
        one.connection.send(one.pruned)
    except (EOFError, OSError):  # it may go while it is answered
        return False
    return True


def _file(one: Running, study: optuna.Study, plan: Plan) -> None:
    """Enter how a trial has ended into the study, and say it."""
    one.process.join()
    code = one.process.exitcode or 0
    reason = _last_line(one.log) if code > 0 else f"ended by {signal.Signals(-code).name}" if code < 0 else ""
    if code in FATAL:
        raise FATAL[code](f"trial {one.trial.number}: {reason.removeprefix('error: ')}")
    if code == 0 and not one.scores:
        raise ConfigError(f"trial {one.trial.number} never validated; {one.log} tells what it did")
    number, metric = one.trial.number, plan.study.metric
    if code:
        one.trial.set_user_attr(REASON, reason)
        study.tell(number, state=TrialState.FAIL)
        print(f"trial {number} failed: {printable(reason)}", flush=True)
        return
    score = plan.best(one.scores.values())
    if one.pruned:
        one.trial.set_user_attr(REASON, f"given up after epoch {max(one.scores)}")
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, score)
    what = f"given up after epoch {max(one.scores)}" if one.pruned else "done"
    print(f"trial {number} {what}: {metric} {show(metric, score)}", flush=True)


def options_of(params: dict[str, Any]) -> str:
    """Return options in a line.

    >>> options_of({"model.lr": 0.00123456, "data.batch_size": 64})
    'model.lr 0.001235, data.batch_size 64'
    """
    shown = (f"{value:.4g}" if isinstance(value, float) else value for value in params.values())
    return ", ".join(f"{name} {value}" for name, value in zip(params, shown, strict=True))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if os.path.isfile(log) else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
