import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch
import yaml

from mnist_lightning import Classifier, SimpleCNN
from mnist_lightning.cli.help_texts import EXAMPLES
from tests.conftest import TEST_COUNT, Command, folders
from tests.training.bits import scalars

pytestmark = pytest.mark.usefixtures("undrawn")

CONFIGS = sorted(
    set(Path(__file__).parents[2].glob("configs/*.yaml")) - {Path(__file__).parents[2] / "configs/sweep.yaml"}
)


def test_fit_then_test_learns_the_small_data_and_counts_every_image(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    trained = fit("--trainer.max_epochs", "4", "--model.lr", "0.003")
    assert trained.code == 0, trained.err
    assert "version_0" in trained.out
    assert "python -m mnist_lightning test" in trained.out
    assert "tensorboard --logdir lightning_logs" in trained.out
    assert trained.out.count("epoch ") >= 4

    tested = command("test")
    assert tested.code == 0, tested.err
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["total"] == TEST_COUNT
    assert result["correct"] >= 95  # squares in ten places: 137 such digits reach accuracy 1.0 in three epochs
    assert result["accuracy"] == result["correct"] / TEST_COUNT
    low, high = result["interval"]
    assert low < result["accuracy"] <= high or result["accuracy"] == high == 1
    assert Path(result["checkpoint"]) == Path("checkpoints/version_0/best.ckpt")
    assert f"{result['correct']}/{TEST_COUNT}" in tested.out

    validated = command("validate", "--ckpt_path", "last")
    assert validated.code == 0
    assert "/60 = " in validated.out


def test_a_run_has_one_number_and_the_documented_files(fit: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "2")
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints" / "version_0").glob("[!.]*"))
    assert checkpoints[0] == "best.ckpt"
    assert [name[:18] for name in checkpoints[1:3]] == ["epoch=00-val_loss=", "epoch=01-val_loss="]
    assert checkpoints[3:] == ["last.ckpt", "manifest.json"]
    logs = sorted(path.name for path in (tmp_path / "lightning_logs" / "version_0").iterdir())
    assert logs[0] == "config.yaml"
    assert [name.split(".")[0] for name in logs[1:]] == ["events"]


def test_a_checkpoint_loads_with_torch_and_with_lightning_alone(fit: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "1", "--model.lr", "0.002")
    path = tmp_path / "checkpoints" / "version_0" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert {"state_dict", "optimizer_states", "epoch", "global_step"} <= checkpoint.keys()
    assert checkpoint["metrics"].keys() == {"train_loss", "train_acc", "val_loss", "val_acc", "lr"}
    weights = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
    SimpleCNN().load_state_dict(weights)
    options = checkpoint["hyper_parameters"]
    assert options.pop("metrics") == {}
    assert all(isinstance(value, int | float | str | None) for value in options.values())
    classifier = Classifier.load_from_checkpoint(path)
    assert classifier.hparams["lr"] == 0.002


def test_scores_are_computed_in_float32_whatever_the_precision_of_training(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.precision", "bf16-mixed")
    assert command("test").code == 0
    assert json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())["precision"] == "32-true"


def test_the_last_epoch_is_saved_however_rarely_epochs_are(fit: Command, command: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "2", "--checkpoint.every_n_epochs", "3")
    assert command("test").code == 0
    assert torch.load(tmp_path / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, "No space left on device", "x"), 5), (OSError(errno.EPIPE, "x"), 1)]
)
def test_errors_of_the_operating_system_have_their_exit_code(
    fit: Command, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int
) -> None:
    def fail(self: Classifier) -> None:
        raise error

    monkeypatch.setattr(Classifier, "on_train_epoch_end", fail)
    assert fit().code == code


def test_the_saved_config_is_complete_and_repeats_the_run_bit_for_bit(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    fit("--trainer.max_epochs", "2", "--seed_everything", "5", "--model.fc_dropout", "0.3")
    assert command("fit", "--config", "lightning_logs/version_0/config.yaml").code == 0
    first, second = (
        torch.load(tmp_path / "checkpoints" / f"version_{version}" / "last.ckpt", weights_only=True)["state_dict"]
        for version in (0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    saved = yaml.safe_load((tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text())
    assert saved["seed_everything"] == 5
    assert saved["model"]["fc_dropout"] == 0.3


def test_another_seed_gives_other_weights(fit: Command, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        fit("--trainer.max_epochs", "1", "--seed_everything", seed)
    first, second = (
        torch.load(tmp_path / "checkpoints" / f"version_{version}" / "last.ckpt", weights_only=True)["state_dict"]
        for version in (0, 1)
    )
    assert not torch.equal(first["network.fc2.weight"], second["network.fc2.weight"])


def test_schedule_and_early_stopping_both_act_and_are_reported(fit: Command, tmp_path: Path) -> None:
    stopping = ("--early_stopping.min_delta", "100", "--early_stopping.patience", "3")
    outcome = fit("--trainer.max_epochs", "20", *stopping, "--model.plateau_patience", "0")
    assert "stopped early: val_loss did not improve for 3 epochs" in outcome.out
    assert outcome.out.count("train_loss") == 4
    fit("--trainer.max_epochs", "5", "--model.lr", "0.03", "--model.plateau_patience", "0")
    # With a learning rate this high and no patience, some epoch is worse than the one before.
    checkpoint = torch.load(tmp_path / "checkpoints" / "version_1" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] < 0.03


def test_training_on_every_image_has_no_best_and_scores_the_last(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    outcome = fit("--data.val_size", "0", "--trainer.max_epochs", "2")
    assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "checkpoints" / "version_0").glob("[!.]*")}
    assert names == {"epoch=00.ckpt", "epoch=01.ckpt", "last.ckpt", "manifest.json"}
    assert command("test").code == 0
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["checkpoint"] == "checkpoints/version_0/last.ckpt"


def test_a_checkpoint_outside_any_run_is_scored_with_its_own_hyper_parameters(
    fit: Command, command: Command, tmp_path: Path, digits_dir: Path
) -> None:
    fit("--trainer.max_epochs", "1", "--model.fc_dropout", "0.1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoints" / "version_0" / "best.ckpt").rename(elsewhere / "mine.ckpt")
    outcome = command("test", "--ckpt_path", "elsewhere/mine.ckpt", "--data.data_dir", str(digits_dir))
    assert outcome.code == 0, outcome.err
    assert json.loads((elsewhere / "test.json").read_text())["total"] == TEST_COUNT


def test_an_interruption_exits_130_and_the_run_can_be_resumed(
    fit: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Classifier) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_after_backward", interrupt)
        outcome = fit("--trainer.max_epochs", "3")
    signal.signal(signal.SIGINT, handler)  # Lightning has it ignored from here on
    assert outcome.code == 130
    assert "resume with fit --ckpt_path last" in outcome.err
    assert command("fit", "--ckpt_path", "last").code == 0
    checkpoint = torch.load(tmp_path / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 2


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_parses(command: Command, config: Path) -> None:
    outcome = command("fit", "--config", str(config), "--print_config")
    assert outcome.code == 0, outcome.err


def test_the_default_config_equals_the_defaults_in_the_code(command: Command) -> None:
    plain = command("fit", "--print_config").out
    assert command("fit", "--config", str(CONFIGS[0].with_name("default.yaml")), "--print_config").out == plain


def test_every_option_has_a_help_text(command: Command) -> None:
    outcome = command("fit", "--help")
    assert outcome.code == 0
    for block in outcome.out.split("  --")[1:]:
        name, _, text = block.partition(" ")
        if name.startswith(("model.", "data.", "early_stopping.", "checkpoint.")):
            assert len(text.split()) > 5, f"--{name} has no explanation"


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps", "limit_train_batches"])
def test_a_run_that_trains_nothing_is_reported_and_discarded(fit: Command, tmp_path: Path, limit: str) -> None:
    outcome = fit(f"--trainer.{limit}", "0")
    assert outcome.code == 2
    assert "nothing was trained" in outcome.err
    assert folders(tmp_path) == []


def test_a_limited_test_writes_no_test_result(
    fit: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    assert command("test").code == 0
    result = tmp_path / "lightning_logs" / "version_0" / "test.json"
    before = result.read_bytes(), scalars(result.parent)
    monkeypatch.setattr("mnist_lightning.data.image_schema.EVAL_PIXELS", 10 * 28**2)
    partial = command("test", "--trainer.limit_test_batches", "1")
    assert partial.code == 0
    assert "/10 = " in partial.out
    assert "is not written" in partial.out
    assert (result.read_bytes(), scalars(result.parent)) == before


def test_a_fast_dev_run_leaves_no_files(fit: Command, tmp_path: Path) -> None:
    assert fit("--trainer.fast_dev_run", "true").code == 0
    assert folders(tmp_path) == []


@pytest.mark.parametrize("option", ["--trainer.val_check_interval=500", "--trainer.strategy=none_such"])
def test_options_that_lightning_refuses_exit_2(fit: Command, tmp_path: Path, option: str) -> None:
    outcome = fit(option)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) <= 2  # the first reports that the data are the user's own
    assert folders(tmp_path) == []


def test_scoring_without_images_is_refused(fit: Command, command: Command) -> None:
    fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--data.val_size", "0")
    for outcome in (command("validate"), command("test", "--trainer.limit_test_batches", "0")):
        assert outcome.code == 2
        assert "no images to score" in outcome.err


def test_a_profiler_shows_its_table(fit: Command, caplog: pytest.LogCaptureFixture) -> None:
    fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.profiler", "simple")
    assert "run_training_epoch" in caplog.text


def test_help_lists_the_references_to_a_checkpoint_and_ends_with_an_example(command: Command) -> None:
    for name in ("fit", "validate", "test"):
        text = " ".join(command(name, "--help").out.split())
        assert "`last` or `best` of the newest run, `version_3/last`, `version_3/best`, or the path" in text
        assert text.endswith(f"example: python -m mnist_lightning {EXAMPLES[name]}")


def test_a_users_own_model_checkpoint_does_not_interfere(fit: Command, command: Command, tmp_path: Path) -> None:
    own = "{class_path: ModelCheckpoint, init_args: {monitor: val_loss, save_last: true}}"
    assert fit("--trainer.max_epochs", "2", "--trainer.callbacks", f"[{own}]").code == 0
    theirs = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    assert sorted(path.name for path in theirs.iterdir()) == ["epoch=1-step=16.ckpt", "last.ckpt"]
    ours = sorted(path.name[:9] for path in (tmp_path / "checkpoints" / "version_0").glob("[!.]*"))
    assert ours == ["best.ckpt", "epoch=00-", "epoch=01-", "last.ckpt", "manifest."]
    assert command("test", "--ckpt_path", str(theirs / "last.ckpt"), "--config",
                   "lightning_logs/version_0/config.yaml").code == 0  # fmt: skip


def test_no_arguments_shows_the_help(command: Command) -> None:
    assert command().code == 2
    assert "usage:" in command("--help").out


def test_one_batch_is_one_batch(fit: Command, tmp_path: Path) -> None:
    assert "1 batches an epoch" in fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1").out
    assert "4 batches an epoch" in fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "0.5").out


def test_a_run_shorter_than_an_epoch_is_saved(fit: Command, command: Command) -> None:
    assert fit("--trainer.max_steps", "3").code == 0
    assert command("test").code == 0


def shown_on_a_terminal(folder: Path, *args: str) -> bytes:
    """Run a command on a new terminal; return what is printed there."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *args], cwd=folder, stdin=child, stdout=child, stderr=child
    )
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads
        while part := os.read(parent, 1024):
            shown += part
    os.close(parent)
    assert process.wait() == 0
    return shown


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(tmp_path: Path, digits_dir: Path) -> None:
    options = ("--data.data_dir", str(digits_dir), "--data.val_size", "60", "--trainer.max_epochs", "1")
    trained, _, tested = shown_on_a_terminal(tmp_path, "fit", *options, "--test_after_fit", "true").partition(b"best ")
    assert trained.startswith("loading …\r".encode())
    assert b"421,642 parameters on " in trained
    assert b"Warning" not in trained + tested
    assert b"Tip:" not in trained + tested
    assert tested.startswith(b"epoch 0")
    assert b"Testing" in tested
    assert b"100%" in tested
    assert shown_on_a_terminal(tmp_path, "export", "--help").startswith(b"usage: ")
