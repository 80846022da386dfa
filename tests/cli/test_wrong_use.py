"""Wrong command lines, data and checkpoints: one line, the exit code, and no files left."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import Command, folders


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--trainer.max_epoch", "3"], "unknown option --trainer.max_epoch; did you mean --trainer.max_epochs?"),
        (["fit", "--model.lr", "-1"], "model.lr must be above 0, got -1.0"),
        (["fit", "--model.lr", "nan"], "model.lr must be float, got nan"),
        (["fit", "--model.lr", "inf"], "model.lr must be float, got inf"),
        (["fit", "--checkpoint.every_n_epochs", "0"], "checkpoint.every_n_epochs must be at least 1, got 0"),
        (["fit", "--checkpoint.every_n_steps", "0"], "checkpoint.every_n_steps must be at least 1, got 0"),
        (["fit", "--checkpoint.every_n_minutes", "0"], "checkpoint.every_n_minutes must be above 0, got 0.0"),
        (["fit", "--model.lr", "fast"], "model.lr must be float, got fast"),
        (["fit", "--model.fc_dropout", "1"], "model.fc_dropout must be in [0, 1), got 1.0"),
        (["fit", "--model.plateau_factor", "2"], "model.plateau_factor must be in (0, 1), got 2.0"),
        (["fit", "--model.plateau_patience", "-1"], "model.plateau_patience must be at least 0, got -1"),
        (["fit", "--data.batch_size", "0"], "data.batch_size must be at least 1, got 0"),
        (["fit", "--seed_everything", "-1"], "seed_everything must be in [0, 2**32), got -1"),
        (["fit", "--trainer.precision", "8"], "trainer.precision must be ['auto', '32-true', 'bf16-mixed'"),
        (["fit", "--trainer.accumulate_grad_batches", "-1"], "accumulate_grad_batches must be in [1, 2**31), got -1"),
        (["fit", "--trainer.check_val_every_n_epoch", "0"], "check_val_every_n_epoch must be in [1, 2**31), got 0"),
        (["fit", "--trainer.gradient_clip_val", "-0.5"], "trainer.gradient_clip_val must be in [0, 2**31), got -0.5"),
        (
            ["fit", "--trainer.default_root_dir", "s3://x"],
            "trainer.default_root_dir must be a local folder, got s3://x",
        ),
        (["fit", "--early_stopping.patience", "0"], "early_stopping.patience must be at least 1, got 0"),
        (["fit", "--early_stopping.mode", "up"], "early_stopping.mode must be ['min', 'max'] or NoneType, got up"),
        (["fit", "--config", "missing.yaml"], "missing.yaml"),
        (
            ["fit", "--config", "unknown.yaml"],
            "unknown option model.lrr in unknown.yaml, line 4; did you mean --model.lr?",
        ),
        (["fit", "--config", "broken.yaml"], "broken.yaml, line 2 is not YAML: expected the node content"),
        (["--config", "unknown.yaml", "fit"], "unknown command --config"),
        (["fot"], "unknown command fot; did you mean fit?"),
        (["guess"], "unknown command guess"),
    ],
)
def test_wrong_use_costs_a_line_and_exit_code_2_and_writes_nothing(
    command: Command, tmp_path: Path, args: list[str], message: str
) -> None:
    (tmp_path / "unknown.yaml").write_text("trainer:\n  max_epochs: 1\nmodel:\n  lrr: 1\n")
    (tmp_path / "broken.yaml").write_text("model: [\n")
    outcome = command(*args)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 5
    assert folders(tmp_path) == ["broken.yaml", "unknown.yaml"]


def test_a_validation_set_larger_than_the_data_is_refused(fit: Command, tmp_path: Path) -> None:
    outcome = fit("--data.val_size", "300")
    assert outcome.code == 2
    assert "data.val_size must be in [0, 299], got 300" in outcome.err
    assert not list(tmp_path.glob("checkpoints/*")), "a run that never began leaves no folder"


def test_an_impossible_label_is_named_and_exits_4(command: Command, tmp_path: Path, digits_dir: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (digits_dir / "MNIST" / "raw").iterdir():
        (raw / file.name).write_bytes(file.read_bytes())
    labels = bytearray((raw / "train-labels-idx1-ubyte").read_bytes())
    labels[8 + 17] = 200
    (raw / "train-labels-idx1-ubyte").write_bytes(labels)
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    outcome = command("fit")
    assert outcome.code == 4
    assert "train-labels-idx1-ubyte" in outcome.err
    assert "label 200" in outcome.err
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before


@pytest.mark.parametrize("kind", ["lightning_logs", "checkpoints"])
def test_a_folder_that_cannot_be_written_exits_5(fit: Command, tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_text("a file, not a folder")
    outcome = fit()
    assert outcome.code == 5
    assert kind in outcome.err


@pytest.mark.parametrize("name", ["test", "validate"])
def test_untrained_weights_are_never_scored(command: Command, tmp_path: Path, name: str) -> None:
    outcome = command(name)
    assert outcome.code == 6
    assert "there is no run" in outcome.err
    assert folders(tmp_path) == []


def test_resuming_without_a_run_exits_6(command: Command) -> None:
    assert command("fit", "--ckpt_path", "last").code == 6


def test_bad_checkpoints_exit_6(command: Command, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "global_step": 5}, tmp_path / "linear.ckpt")
    hparams = {"lr": 0.1}
    other = {"state_dict": nn.Linear(2, 2).state_dict(), "global_step": 5, "epoch": 0, "hyper_parameters": hparams}
    torch.save(other, tmp_path / "other.ckpt")
    for name, reason in (
        ("text", "not a checkpoint"),
        ("linear", "not saved by this project"),
        ("other", "another network"),
    ):
        outcome = command("test", "--ckpt_path", f"{name}.ckpt")
        assert outcome.code == 6
        assert f"{name}.ckpt" in outcome.err
        assert reason in outcome.err
        assert len(outcome.err.splitlines()) == 1
