"""A program that runs a command gets control back, in the process that it had before."""

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import torch

from mnist_lightning.cli.main import run

SMALL = ("--data.val_size", "60", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2")


def process_state() -> dict[str, Any]:
    names = (
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.profilers",
        "tensorboard",
        "matplotlib",
        "optuna",
    )
    return {
        "environment": dict(os.environ),
        "levels": {name: logging.getLogger(name).level for name in names},
        "filters": list(warnings.filters),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "streams": (sys.stdout, sys.stderr, getattr(sys.stdout, "errors", None)),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "flushes denormals": not torch.full((), 1e-40).mul(1),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "loader": jsonargparse.get_loader("yaml"),
        "hooks": (sys.excepthook, threading.excepthook),
        "path": (list(sys.argv), os.getcwd()),
        "collects": gc.isenabled(),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py"])
    return tmp_path


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["fot"], 2),
        (["fit", "--help"], 0),
        (["fit", "--trainer.max_epoch", "1"], 2),
        (["doctor", "--unknown"], 2),
        (["test"], 6),
        (["predict", "nowhere.png"], 6),
    ],
)
def test_commands_return_their_exit_code(folder: Path, args: list[str], code: int) -> None:
    before = process_state()
    assert run(args) == code
    assert process_state() == before


@pytest.mark.parametrize("flushes", [False, True])
def test_a_training_leaves_the_process_as_it_was(folder: Path, digits_dir: Path, flushes: bool) -> None:
    torch.set_flush_denormal(flushes)
    try:
        before = process_state()
        assert before["flushes denormals"] == flushes
        assert run(["fit", "--data.data_dir", str(digits_dir), *SMALL, "--test_after_fit", "true"]) == 0
        assert process_state() == before
    finally:
        torch.set_flush_denormal(False)
    assert (folder / "lightning_logs" / "version_0" / "test.json").exists()
    parser = jsonargparse.ArgumentParser()  # of the program; ours would refuse its class and its empty group
    parser.add_argument("--delta", type=Path)
    parser.add_argument("--amounts", type=dict[str, int])
    assert parser.parse_object({"delta": "a", "amounts": {}}).amounts == {}
    parser.add_subclass_arguments(logging.Handler, "handler")
    assert parser.parse_args(["--handler", "logging.NullHandler"]).handler.class_path == "logging.NullHandler"


def test_a_thread_can_train(folder: Path, digits_dir: Path) -> None:
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(["fit", "--data.data_dir", str(digits_dir), *SMALL])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert (folder / "checkpoints" / "version_0" / "best.ckpt").exists()
