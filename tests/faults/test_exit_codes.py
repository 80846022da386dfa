"""The exit code of each fault; each is reported in one line, and leaves no empty run."""

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import nn

from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.data.mnist import idx
from mnist_lightning.training import checkpoint_io
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from tests.conftest import Command

pytestmark = pytest.mark.slow

RUN, LOGS = Path("checkpoints/version_0"), Path("lightning_logs/version_0")


@dataclass(frozen=True)
class Stage:
    """What a fault needs.

    Args:
        run: Runs a command.
        patch: Patches the program during a test.
        data_dir: A copy of the small data, which commands train on.
    """

    run: Command
    patch: pytest.MonkeyPatch
    data_dir: Path

    def before(self, owner: type, method: str, action: Callable[[Any], object]) -> None:
        """Call an action with the object each time before a method runs."""
        original = getattr(owner, method)

        def replacement(self: Any, *args: Any, **kwargs: Any) -> Any:
            action(self)
            return original(self, *args, **kwargs)

        self.patch.setattr(owner, method, replacement)


Fault = Callable[[Stage], object]  # causes a fault; its result is kept until the command has ended


def nothing(stage: Stage) -> None: ...


def a_run(stage: Stage) -> None:
    assert stage.run("fit", "--trainer.max_epochs", "1").code == 0


def a_run_without_validation(stage: Stage) -> None:
    assert stage.run("fit", "--trainer.max_epochs", "1", "--data.val_size", "0").code == 0


def an_older_run(stage: Stage) -> None:
    a_run(stage)
    for kind in ("checkpoints", "lightning_logs"):
        Path(kind, "version_1").mkdir()


def a_run_in_use(stage: Stage) -> FileLock:
    a_run(stage)
    lock = FileLock(RUN / ".lock")
    lock.acquire()
    return lock


def a_run_stopped_within_its_epoch(stage: Stage) -> None:
    with pytest.MonkeyPatch.context() as patch:
        a_signal("SIGTERM", Classifier, "training_step")(Stage(stage.run, patch, stage.data_dir))
        assert stage.run("fit", "--trainer.max_epochs", "1").code == 143


def a_run_that_lost(path: Path) -> Fault:
    def prepare(stage: Stage) -> None:
        a_run(stage)
        path.unlink()

    return prepare


def a_run_with(path: Path, text: str) -> Fault:
    def prepare(stage: Stage) -> None:
        a_run(stage)
        path.write_text(text)

    return prepare


def a_config_that(text: str) -> Fault:
    return lambda stage: Path("config.yaml").write_text(text)


def a_file_in_place_of(name: str) -> Fault:
    return lambda stage: Path(name).write_text("")


def a_loss_that_is_not_finite(stage: Stage) -> None:
    stage.before(Classifier, "training_step", lambda self: nn.init.constant_(self.network.fc2.bias, float("nan")))


def a_gradient_that_is_not_finite(stage: Stage) -> None:
    def spoil(classifier: Classifier) -> None:
        for parameter in classifier.parameters():
            parameter.grad = torch.full_like(parameter, float("inf"))

    stage.before(Classifier, "on_after_backward", spoil)


def a_validation_loss_that_is_not_finite(stage: Stage) -> None:
    def spoil(classifier: Classifier) -> None:
        classifier.network.fc2.bias.data.fill_(float("inf"))

    stage.before(Classifier, "on_validation_epoch_start", spoil)


def no_data(stage: Stage) -> None:
    shutil.rmtree(stage.data_dir)


def a_data_file_that(change: Callable[[bytearray], object]) -> Fault:
    def prepare(stage: Stage) -> None:
        path = stage.data_dir / "MNIST" / "raw" / "train-labels-idx1-ubyte"
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return prepare


def images_of_another_size(stage: Stage) -> None:
    for prefix, count in (("train", 300), ("t10k", 101)):
        idx.write(stage.data_dir / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", np.zeros((count, 9, 9), np.uint8))


def a_system_that_refuses(fault: int) -> Fault:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    return lambda stage: stage.patch.setattr(checkpoint_io, "replace_file", refuse)


def a_program_that_fails(stage: Stage) -> None:
    stage.before(Classifier, "on_train_epoch_end", lambda self: 1 / 0)


def a_closed_output(stage: Stage) -> None:
    def fail(classifier: Classifier) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    stage.before(Classifier, "on_train_epoch_end", fail)


def a_checkpoint_that(change: Callable[[dict[str, Any]], object]) -> Fault:
    def prepare(stage: Stage) -> None:
        a_run(stage)
        content = torch.load(RUN / "last.ckpt", weights_only=True)
        torch.save(change(content) or content, "it.ckpt")

    return prepare


def damaged_checkpoints(stage: Stage) -> None:
    a_run(stage)
    for path in RUN.glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1])


def a_signal(name: str, owner: type, method: str) -> Fault:
    def send(_: object) -> None:
        os.kill(os.getpid(), signal.Signals[name])

    return lambda stage: stage.before(owner, method, send)


def a_signal_while_testing(stage: Stage) -> None:
    a_run(stage)
    a_signal("SIGTERM", Classifier, "test_step")(stage)


SWEEP = """
study: {name: s, trials: 1}
fit: {data.data_dir: digits, data.source: files, data.val_size: 60, trainer.max_epochs: 1}
"""
LR = "space: {model.lr: {choices: [0.001]}}"


def a_sweep_that(text: str, before: Fault = nothing) -> Fault:
    def prepare(stage: Stage) -> None:
        before(stage)
        Path("sweep.yaml").write_text(text)

    return prepare


def a_damaged_study(stage: Stage) -> None:
    Path("sweeps/s").mkdir(parents=True)
    Path("sweeps/s/study.db").write_bytes(b"no database" * 1000)


TABLE: list[tuple[int, Fault, str, str]] = [
    # 0 done
    (0, nothing, "--version", "mnist-lightning"),
    (0, nothing, "fit", "run: lightning_logs/version_0 and checkpoints/version_0"),
    (0, a_run, "validate", "validation accuracy"),
    (0, a_run, "test", "wrote lightning_logs/version_0/test.json"),
    (0, a_run, "fit --ckpt_path last", "version_0 has finished"),
    (0, a_run, "fit --ckpt_path last --trainer.max_epochs 2 --trainer.max_steps 3", "trained 8 steps; a larger"),
    (0, a_run_with(LOGS / "test.json", '{"correct": 1'), "test", "wrote lightning_logs/version_0/test.json"),
    (0, a_run_that_lost(RUN / "manifest.json"), "fit --ckpt_path last --trainer.max_epochs 2", "best epoch"),
    (
        0,
        a_run_with(RUN / "manifest.json", '{"check'),
        "test",
        "cannot be read; relying on the checksums in each checkpoint",
    ),
    (0, a_sweep_that(SWEEP + LR), "sweep --config sweep.yaml", "best: trial 0"),
    # 1 unexpected
    (1, a_sweep_that(SWEEP + LR.replace("0.001", "1e30")), "sweep --config sweep.yaml", "no trial has a score"),
    (1, a_program_that_fails, "fit", "unexpected ZeroDivisionError: division by zero; --debug shows where"),
    (1, a_closed_output, "fit", "the output was closed before the command had finished"),
    # 2 usage or config
    (2, nothing, "", "usage:"),
    (2, nothing, "fot", "unknown command fot; did you mean fit?"),
    (2, nothing, "fit --trainer.max_epoch 3", "unknown option --trainer.max_epoch; did you mean --trainer.max_epochs?"),
    (2, nothing, "fit --model.lr -1", "model.lr must be above 0, got -1.0"),
    (2, nothing, "fit --data.val_size 300", "data.val_size must be in [0, 299], got 300"),
    (2, nothing, "fit --config missing.yaml", "missing.yaml"),
    (2, a_config_that("model: {lrr: 1}"), "fit --config config.yaml", "model.lrr in config.yaml, line 1"),
    (
        2,
        a_config_that("a: !!python/name:os.system"),
        "fit --config config.yaml",
        "config.yaml, line 1 is not YAML",
    ),
    (2, nothing, "fit --config http://127.0.0.1:9/x", "configs are read from local files only"),
    (2, nothing, "fit --trainer.callbacks os.system", "trainer.callbacks"),
    (2, nothing, "fit --trainer.strategy none_such", "strategy"),
    (2, nothing, "fit --trainer.val_check_interval 999", "val_check_interval"),
    (2, nothing, "fit --trainer.max_epochs 0", "nothing was trained"),
    (2, nothing, "fit --data.mirrors [http://127.0.0.1:9/]", "mirrors must be https addresses"),
    (2, a_run_in_use, "fit --ckpt_path last", "version_0 is being trained by another process"),
    (2, a_run_without_validation, "validate", "validate has no images to score"),
    (
        2,
        a_run_stopped_within_its_epoch,
        "fit --ckpt_path last --data.batch_size 8",
        "(32 to 8) in mid-epoch",
    ),
    (
        2,
        a_run_with(LOGS / "config.yaml", "model: {"),
        "test",
        "lightning_logs/version_0/config.yaml, line 1 is not YAML",
    ),
    (2, nothing, "sweep --config missing.yaml", "missing.yaml is not a file"),
    (2, nothing, "sweep", "required: --config"),
    (2, a_sweep_that(SWEEP), "sweep --config sweep.yaml", "needs options to search under `space`"),
    (2, a_sweep_that(SWEEP + LR.replace("lr", "lrr")), "sweep --config sweep.yaml", "did you mean --model.lr?"),
    (2, nothing, "repeat --runs 1", "--runs: must be a whole number at least 2"),
    (2, nothing, "repeat --ckpt_path last", "repeat trains from the start"),
    (2, nothing, "compare version_0 version_1", "predictions.csv does not exist; run `test` to write it"),
    # 3 training diverged
    (3, a_loss_that_is_not_finite, "fit", "epoch 0, batch 0, step 0: the loss is nan"),
    (3, a_gradient_that_is_not_finite, "fit", "epoch 0, batch 0, step 0: the norm of the gradient is"),
    (3, a_validation_loss_that_is_not_finite, "fit", "the validation loss is nan"),
    (3, nothing, "fit --model.lr 1e30", "Try a lower --model.lr"),
    # 4 data
    (4, no_data, "fit --data.source files", "train-images-idx3-ubyte: missing; your own data needs all four"),
    (4, no_data, "fit --data.source download --data.mirrors [https://127.0.0.1:9/]", "could not be downloaded"),
    (
        4,
        a_data_file_that(lambda data: data.__setitem__(17, 200)),
        "fit",
        "label 200 at byte 17, but only 11 of the classes",
    ),
    (
        4,
        a_data_file_that(bytearray.pop),
        "fit --data.source files",
        "too short: 300 items need 308 bytes, the file has",
    ),
    (4, a_data_file_that(bytearray.clear), "fit --data.source files", "the file is empty"),
    (4, images_of_another_size, "fit", "train images are 9×9 pixels, the network takes 28×28"),
    (4, a_sweep_that(SWEEP + LR, no_data), "sweep --config sweep.yaml", "missing; your own"),
    # 5 disk or permissions
    (5, a_sweep_that(SWEEP + LR, a_file_in_place_of("sweeps")), "sweep --config sweep.yaml", "cannot write into"),
    (5, a_sweep_that(SWEEP + LR, a_damaged_study), "sweep --config sweep.yaml", "cannot be used as a study"),
    (5, a_file_in_place_of("lightning_logs"), "fit", "lightning_logs is not a folder"),
    (5, a_file_in_place_of("checkpoints"), "fit", "checkpoints is not a folder"),
    (5, a_system_that_refuses(errno.ENOSPC), "fit", "No space left on device"),
    (5, a_system_that_refuses(errno.EIO), "fit", "Input/output error"),
    (5, a_system_that_refuses(errno.EACCES), "fit", "Permission denied"),
    (5, a_file_in_place_of("data"), "fit --data.data_dir data --data.source bundled", "data"),
    # 6 checkpoint
    (6, nothing, "test", "there is no run"),
    (6, nothing, "fit --ckpt_path last", "there is no run"),
    (0, an_older_run, "test", "wrote lightning_logs/version_0/test.json"),
    (0, an_older_run, "fit --ckpt_path last", "version_0 has finished"),
    (6, an_older_run, "test --ckpt_path version_1/best", "pass that of another run with --ckpt_path"),
    (6, an_older_run, "fit --ckpt_path version_1/last", "pass that of another run with --ckpt_path"),
    (6, a_run_that_lost(LOGS / "config.yaml"), "test", "config.yaml is missing, and with it the options of the run"),
    (6, nothing, "test --ckpt_path none.ckpt", "none.ckpt: no such checkpoint file"),
    (6, nothing, "test --ckpt_path https://127.0.0.1:9/x.ckpt", "no such checkpoint file; expected a local file"),
    (6, a_file_in_place_of("it.ckpt"), "test --ckpt_path it.ckpt", "it.ckpt is not a checkpoint, or is corrupted"),
    (6, damaged_checkpoints, "test", "both copies of the best checkpoint are missing or corrupted"),
    (6, damaged_checkpoints, "fit --ckpt_path last", "no checkpoint that verifies"),
    (6, a_checkpoint_that(lambda it: it["state_dict"].clear()), "test --ckpt_path it.ckpt", "of another network"),
    (6, a_checkpoint_that(lambda it: it.update(global_step=0)), "test --ckpt_path it.ckpt", "untrained weights"),
    (6, a_checkpoint_that(lambda it: it["state_dict"]), "test --ckpt_path it.ckpt", "has no state_dict of tensors"),
    (6, a_checkpoint_that(lambda it: it.pop("loops") and None), "fit --ckpt_path it.ckpt", "but not resumed"),
    (
        6,
        a_checkpoint_that(lambda it: it.update(hyper_parameters={})),
        "test --ckpt_path it.ckpt",
        "this project's Class",
    ),
    # 129, 130, 143 signals
    *(
        (128 + signal.Signals[name], a_signal(name, owner, method), "fit", words)
        for name in ("SIGHUP", "SIGINT", "SIGTERM")
        for owner, method, words in (
            (MNISTDataModule, "prepare_data", ""),
            (Classifier, "training_step", f"{name}: saved after step 1; fit --ckpt_path last resumes"),
            (Classifier, "validation_step", f"{name}: saved after step 8"),
            (DurableCheckpointIO, "save_checkpoint", f"{name}: saved after step 8"),
        )
    ),
    (143, a_signal_while_testing, "test", ""),
]


@pytest.fixture
def stage(command: Command, digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    data_dir = tmp_path / "digits"
    shutil.copytree(digits_dir, data_dir)
    data = ["--data.data_dir", str(data_dir), "--data.val_size", "60", "--data.batch_size", "32"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*args: str) -> Any:
        makes_a_run = args[:1] == ("fit",) and "--ckpt_path" not in args
        return command(*args[:1], *(data if makes_a_run else []), *args[1:])

    yield Stage(run, monkeypatch, data_dir)
    for number, handler in handlers.items():  # Lightning leaves SIGINT ignored after an interruption
        signal.signal(number, handler)


@pytest.mark.parametrize(("code", "fault", "line", "words"), TABLE, ids=[f"{row[0]}-{row[3]}" for row in TABLE])
def test_a_fault_has_its_exit_code(code: int, fault: Fault, line: str, words: str, stage: Stage) -> None:
    kept = fault(stage)
    outcome = stage.run(*line.split())
    assert outcome.code == code, outcome.err
    assert words in outcome.out + outcome.err
    if code in range(1, 7) and line:
        assert outcome.err.splitlines()[-1].startswith("error: ") or "\n  https" in outcome.err
    for run in Path("checkpoints").glob("version_0"):
        assert list(run.glob("*.ckpt")), "an empty run was left behind"
    del kept
