"""Real processes: the same command resumes an interrupted or killed sweep, and works beside one that runs."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from tests.conftest import Command
from tests.tuning.conftest import FOLDER, Write, rows, states

pytestmark = pytest.mark.slow
EPOCHS = 8  # so that a trial still runs when the sweep is interrupted


def started(config: Path, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "mnist_lightning", "sweep", "--config", str(config)], cwd=folder)


def wait_until(condition: Callable[[], object], process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None, "the sweep ended"
        time.sleep(0.05)


def processes_in(folder: Path) -> list[int]:
    """Return the other processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if os.readlink(process / "cwd") == str(folder) and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_resumes_and_runs_the_interrupted_trial_again(
    command: Command, config: Write, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    file = config(study={"trials": 2}, fit={"trainer.max_epochs": EPOCHS, "early_stopping.enabled": False})
    sweep = started(file, tmp_path)
    wait_until(lambda: list(FOLDER.rglob("epoch=00-*.ckpt")), sweep)
    sweep.send_signal(number)
    assert sweep.wait() == code
    deadline_s = time.monotonic() + 60
    while processes_in(tmp_path):
        assert time.monotonic() < deadline_s, "the trial outlived its sweep"
        time.sleep(0.1)
    ended = states(FOLDER).count("COMPLETE")
    assert states(FOLDER) == ["COMPLETE"] * ended + ["RUNNING"]
    assert command("sweep", "--config", str(file)).code == 0
    assert states(FOLDER) == ["COMPLETE"] * ended + ["FAIL"] + ["COMPLETE"] * (2 - ended)
    searched = [row["model.lr"] for row in rows(FOLDER)]
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{FOLDER / 'study.db'}")
    assert study.trials[ended].params == study.trials[ended + 1].params
    unbroken = config(study={"trials": 2, "folder": "sweeps/unbroken"}, fit={"trainer.max_epochs": 1})
    assert command("sweep", "--config", str(unbroken)).code == 0
    assert searched == [row["model.lr"] for row in rows(Path("sweeps/unbroken"))]


def test_two_commands_run_trials_of_one_sweep_at_the_same_time(config: Write, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    file = config(study={"trials": 4}, fit={"trainer.max_epochs": EPOCHS, "early_stopping.enabled": False})
    sweeps = [started(file, tmp_path), started(file, tmp_path)]
    wait_until(lambda: len(list(folder.glob("trials/*.txt"))) >= 2, sweeps[0])
    assert [sweep.wait() for sweep in sweeps] == [0, 0]
    assert states(folder) == ["COMPLETE"] * 4
    assert len({row["run"] for row in rows(folder)}) == len({row["model.lr"] for row in rows(folder)}) == 4


def test_a_command_takes_over_the_trial_of_one_that_was_killed_beside_it(config: Write, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    file = config(study={"trials": 3}, fit={"trainer.max_epochs": EPOCHS, "early_stopping.enabled": False})
    killed, other = started(file, tmp_path), started(file, tmp_path)
    wait_until(lambda: len(list(folder.glob("trials/*.txt"))) >= 2, killed)
    killed.kill()
    killed.wait()
    assert other.wait() == 0
    assert [state for state in states(folder) if state != "FAIL"] == ["COMPLETE"] * 3
