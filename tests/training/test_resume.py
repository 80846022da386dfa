import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import Command, run_in
from tests.training.bits import assert_same, comparable, content, scalars, stop_at

pytestmark = pytest.mark.usefixtures("undrawn")

# A patience of 0 makes the schedule cut the learning rate within the run.
CUTTING = ("--model.plateau_patience", "0", "--model.lr", "0.02", "--early_stopping.enabled", "false")


@pytest.fixture(scope="module")
def unbroken_root(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> Path:
    """A folder with a run of five epochs."""
    root = tmp_path_factory.mktemp("unbroken")
    small = ("--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.batch_size", "32")
    run_in(root, ["fit", *small, "--tensorboard.figures", "none", "--trainer.max_epochs", "5", *CUTTING])
    return root


@pytest.mark.parametrize("epochs_before", [*(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2)), 3])
def test_a_run_resumed_at_an_epochs_end_is_the_unbroken_run(
    fit: Command, command: Command, tmp_path: Path, unbroken_root: Path, epochs_before: int
) -> None:
    shutil.copytree(unbroken_root, tmp_path, dirs_exist_ok=True)
    assert fit("--trainer.max_epochs", str(epochs_before), *CUTTING).code == 0
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert resumed.code == 0, resumed.err

    unbroken, again = tmp_path / "checkpoints" / "version_0", tmp_path / "checkpoints" / "version_1"
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in unbroken.iterdir())
    ours, theirs = content(again), content(unbroken)
    assert_same(comparable(ours), comparable(theirs))
    assert ours["optimizer_states"][0]["param_groups"][0]["lr"] < 0.02
    logs = tmp_path / "lightning_logs"
    assert scalars(logs / "version_1") == scalars(logs / "version_0")
    assert [step for step, _ in scalars(logs / "version_1")["Loss/val"]] == [0, 1, 2, 3, 4]
    assert_same(content(again, "best.ckpt")["state_dict"], content(unbroken, "best.ckpt")["state_dict"])


def test_early_stopping_counts_on_after_resuming(fit: Command, command: Command, tmp_path: Path) -> None:
    # No loss improves by 100, so every epoch after the first counts.
    options = ("--early_stopping.min_delta", "100", "--early_stopping.patience", "3")
    assert fit("--trainer.max_epochs", "9", *options).code == 0
    assert fit("--trainer.max_epochs", "2", *options).code == 0
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "9").code == 0
    unbroken, again = tmp_path / "checkpoints" / "version_0", tmp_path / "checkpoints" / "version_1"
    assert content(unbroken)["epoch"] == content(again)["epoch"] == 3
    assert_same(content(again)["state_dict"], content(unbroken)["state_dict"])


def test_resuming_what_has_finished_says_so(fit: Command, command: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "1")
    for reference, name in (("last", "version_0"), ("version_0/best", "checkpoints/version_0/best.ckpt")):
        outcome = command("fit", "--ckpt_path", reference)
        assert outcome.code == 0
        assert f"{name} has finished: trained 1 epochs" in outcome.out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["version_0"], "nothing new has begun"


@pytest.mark.parametrize("epochs", [pytest.param("null", marks=pytest.mark.slow), "-1"])
def test_a_run_counted_in_steps_resumes_until_it_has_taken_them(fit: Command, command: Command, epochs: str) -> None:
    fit("--trainer.max_epochs", "1")
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", epochs, "--trainer.max_steps", "20")
    assert resumed.code == 0, resumed.err
    assert "up to 20 steps" in resumed.out
    assert "version_0 has finished: trained 20 steps" in command("fit", "--ckpt_path", "last").out


def test_a_run_without_its_saved_config_needs_a_config(fit: Command, command: Command, tmp_path: Path) -> None:
    options = ("--model.fc_dropout", "0.3", "--seed_everything", "4", "--early_stopping.enabled", "false")
    for epochs in ("2", "1"):
        assert fit("--trainer.max_epochs", epochs, *options).code == 0
    (tmp_path / "lightning_logs" / "version_1" / "config.yaml").unlink()
    for refused in (command("test"), command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")):
        assert refused.code == 6
        assert "version_1/config.yaml is missing, and with it the options of the run; pass --config" in refused.err
    config = ("--config", "lightning_logs/version_0/config.yaml")
    assert "/101 = " in command("test", *config).out  # the small data's 101 images, not MNIST's 10,000
    resumed = command("fit", "--ckpt_path", "last", *config)
    assert resumed.code == 0
    runs = tmp_path / "checkpoints"
    assert_same(content(runs / "version_1")["state_dict"], content(runs / "version_0")["state_dict"])


def test_another_learning_rate_is_obeyed_when_resuming(fit: Command, command: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "1")
    outcome = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--model.lr", "0.0003")
    assert outcome.code == 0
    assert "model.lr: changed from 0.001 to 0.0003" in outcome.out
    checkpoint = content(tmp_path / "checkpoints" / "version_0")
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0003
    config = (tmp_path / "lightning_logs" / "version_0" / "config.yaml").read_text()
    assert "# up to step 8: model.lr was 0.001\n" in config
    assert yaml.safe_load(config)["model"]["lr"] == 0.0003


@pytest.mark.parametrize("by_config", [True, False])
@pytest.mark.parametrize("where", ["last", "checkpoints/version_0/last.ckpt", "elsewhere.ckpt"])
def test_what_contradicts_a_checkpoint_is_named_and_obeyed(
    fit: Command, command: Command, tmp_path: Path, digits_dir: Path, where: str, by_config: bool
) -> None:
    fit("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    run = tmp_path / "checkpoints" / "version_0"
    shutil.copy(run / "last.ckpt", tmp_path / "elsewhere.ckpt")
    data = {"data_dir": str(digits_dir), "val_size": 60, "batch_size": 16}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({"model": {"lr": 0.0003}, "data": data}))
    options = ["--config", "new.yaml"] if by_config else ["--model.lr", "3e-4", "--data.batch_size", "16"]
    outcome = command("fit", "--ckpt_path", where, *options, "--trainer.max_epochs", "2")
    assert outcome.code == 0, outcome.err
    assert "model.lr: changed from 0.001 to 0.0003" in outcome.out
    assert "data.batch_size: changed from 32 to 16" in outcome.out
    resumed = content(run if where == "last" else run.with_name("version_1"))
    assert resumed["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0003
    assert resumed["global_step"] == 1 + (15 if by_config or where == "elsewhere.ckpt" else 1)


def test_the_order_of_images_cannot_change_within_an_epoch(
    fit: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert fit("--trainer.max_epochs", "1").code == 143
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for where in ("last", "checkpoints/version_0/last.ckpt"):
        outcome = command("fit", "--ckpt_path", where, "--data.batch_size", "16")
        assert outcome.code == 2
        assert "cannot change data.batch_size (32 to 16) in mid-epoch" in outcome.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_resuming_from_another_checkpoint_than_the_last_starts_a_new_run(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    fit("--trainer.max_epochs", "3")
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*.ckpt")}
    first = next(path for path in before if path.name.startswith("epoch=00"))
    assert command("fit", "--ckpt_path", str(first), "--trainer.max_epochs", "3").code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert_same(
        content(tmp_path / "checkpoints" / "version_1")["state_dict"],
        content(tmp_path / "checkpoints" / "version_0")["state_dict"],
    )


def test_copies_that_a_kill_left_behind_catch_up_with_the_run(fit: Command, command: Command, tmp_path: Path) -> None:
    # Killed between the last epoch's own file and its copies: the run has finished, the copies are an epoch old.
    assert fit("--trainer.max_epochs", "2", "--early_stopping.enabled", "false").code == 0
    run = tmp_path / "checkpoints" / "version_0"
    first, second = sorted(run.glob("epoch=*.ckpt"))
    scores = [content(run, file.name)["metrics"] for file in (first, second)]
    assert scores[0]["val_acc"] == scores[1]["val_acc"]
    assert scores[0]["val_loss"] > scores[1]["val_loss"], "ties are broken by the lower loss"
    for copy in ("last.ckpt", "best.ckpt"):
        (run / copy).write_bytes(first.read_bytes())
    assert "has finished" in command("fit", "--ckpt_path", "last").out
    for copy in ("last.ckpt", "best.ckpt"):
        assert (run / copy).read_bytes() == second.read_bytes()


def test_the_line_about_resuming_can_be_typed_as_it_is(fit: Command, command: Command, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        stop_at(3, patch)
        stopped = fit("--trainer.max_epochs", "1", "--trainer.default_root_dir", "else where")
    (line,) = re.findall(r"saved after step 4; (.+) resumes", stopped.out)
    assert command(*shlex.split(line)).code == 0
    assert content(elsewhere / "checkpoints" / "version_0")["global_step"] == 8
