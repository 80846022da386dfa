"""The range test: what it measures, what it suggests, and that the run after it is the one that a person would type."""

import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from mnist_lightning import SimpleCNN
from mnist_lightning.data.mnist import idx
from mnist_lightning.errors import ConfigError
from mnist_lightning.training.lr_finder import RangeTest
from tests.conftest import TRAIN_COUNT, Command
from tests.data.table.tables import write_iris
from tests.training.bits import assert_same, content, scalars, stop_at

LOGS, CHECKPOINTS = Path("lightning_logs"), Path("checkpoints")
IRIS = ("--data_kind", "table", "--data.csv_file", "mine.csv", "--data.target", "species")


def found_lr(version: int = 0) -> float:
    """Return the learning rate in the config that a run saved."""
    lr: float = yaml.safe_load((LOGS / f"version_{version}" / "config.yaml").read_text())["model"]["lr"]
    return lr


def table(version: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return learning rates and losses (2, steps) as the run has filed them."""
    with (LOGS / f"version_{version}" / "find_lr.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["lr", "loss"]
    return np.array(rows, float).T


def assert_runs_equal(left: str, right: str) -> None:
    """Compare all that two runs have left, but for the range test of the first."""
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = content(CHECKPOINTS / left, name), content(CHECKPOINTS / right, name)
        for checkpoint, run in ((ours, left), (theirs, right)):
            saver = checkpoint["callbacks"]["RunCheckpoint"]
            assert Path(saver.pop("dirpath")).name == run
            for key in ("best_model_path", "last_model_path", "kth_best_model_path", "best_k_models"):
                saver.pop(key)  # paths
        assert_same(ours, theirs, name)
    assert (LOGS / left / "config.yaml").read_text() == (LOGS / right / "config.yaml").read_text()
    assert scalars(LOGS / left) == scalars(LOGS / right)
    names = [sorted(path.name for path in (CHECKPOINTS / run).iterdir()) for run in (left, right)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--data.shift", "1", "--trainer.accumulate_grad_batches", "2", "--model.schedule", "linear"),
        (
            "--model.optimizer",
            "muon",
            "--model.schedule",
            "cosine",
            "--model.warmup",
            "0.3",
            "--model.ema_decay",
            "0.5",
        ),
    ],
    ids=["as it comes", "linear", "muon"],
)
def test_the_run_that_follows_is_the_run_of_whoever_types_the_learning_rate(
    fit: Command, options: tuple[str, ...]
) -> None:
    searched = fit("--trainer.max_epochs", "2", *options, "--find_lr")
    assert searched.code == 0, searched.err
    lr = found_lr()
    assert lr != 1e-3
    assert f"learning rate: {lr:g}, where the loss fell fastest in " in searched.out
    assert fit("--trainer.max_epochs", "2", *options, "--model.lr", f"{lr:g}").code == 0
    assert_runs_equal("version_0", "version_1")
    assert content(CHECKPOINTS / "version_0")["hyper_parameters"]["lr"] == lr


def test_it_is_so_for_a_table_too(command: Command, tmp_path: Path) -> None:
    write_iris(tmp_path / "mine.csv")
    searched = command("fit", *IRIS, "--model.dropout", "0.1", "--trainer.max_epochs", "3", "--find_lr")
    assert searched.code == 0, searched.err
    lr = f"{found_lr():g}"
    assert command("fit", *IRIS, "--model.dropout", "0.1", "--trainer.max_epochs", "3", "--model.lr", lr).code == 0
    assert_runs_equal("version_0", "version_1")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_losses_are_those_of_a_plain_loop(fit: Command, digits_dir: Path, accumulated: int) -> None:
    steps = 24  # of several epochs; later, what was rounding has become a difference
    outcome = fit(
        "--find_lr", "--trainer.max_epochs", "1", "--model.schedule", "cosine", "--model.conv_dropout", "0",
        "--model.fc_dropout", "0", "--trainer.precision", "32-true",
        "--trainer.accumulate_grad_batches", str(accumulated),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    folder = digits_dir / "MNIST" / "raw"
    pixels = torch.from_numpy(idx.read_images(folder / "train-images-idx3-ubyte").astype(np.float32))
    labels = torch.from_numpy(idx.read_labels(folder / "train-labels-idx1-ubyte").astype(np.int64))
    images = ((pixels / 255 - 0.1307) / 0.3081)[:, None]
    train = np.sort(np.random.default_rng(0).permutation(TRAIN_COUNT)[60:])
    torch.manual_seed(0)
    network = SimpleCNN(0.0, 0.0)
    optimizer = torch.optim.Adam(network.parameters())
    lrs = np.geomspace(1e-6, 1, 150)
    losses: list[float] = []
    for epoch in range(steps * accumulated // 8):
        order = train[np.random.default_rng([0, epoch]).permutation(len(train))]
        batches = [torch.from_numpy(order[start : start + 32]) for start in range(0, len(order), 32)]
        for start in range(0, len(batches), accumulated):
            optimizer.param_groups[0]["lr"] = lrs[len(losses)]
            optimizer.zero_grad()
            parts = [F.cross_entropy(network(images[b]), labels[b]) for b in batches[start : start + accumulated]]
            sum(part / accumulated for part in parts).backward()  # type: ignore[union-attr]
            optimizer.step()
            losses.append(float(np.mean([part.item() for part in parts])))
    filed_lrs, filed = table()
    assert filed_lrs == pytest.approx(lrs[: len(filed_lrs)], rel=1e-12)
    # Another order of the sums, which Adam enlarges where a gradient is nearly nothing.
    assert filed[:steps] == pytest.approx(losses[:steps], rel=1e-3)


def falling(lrs: np.ndarray[tuple[int], np.dtype[np.float64]], fastest: float) -> list[float]:
    """Return losses from 2.3 to 0.3 that fall fastest at one learning rate, by the slope of the logistic function."""
    losses: list[float] = (0.3 + 2 / (1 + (lrs / fastest) ** 2)).tolist()
    return losses


@pytest.mark.parametrize("fastest", [2e-5, 4e-4, 3e-2])
def test_the_suggestion_is_where_the_loss_falls_fastest(fastest: float) -> None:
    lrs = np.geomspace(1e-6, 1, 150)
    suggestion = RangeTest(lrs.tolist(), falling(lrs, fastest)).suggestion
    # Between two steps lies a factor of 1.1, and it has two digits.
    assert suggestion == pytest.approx(fastest, rel=0.1)
    assert suggestion == float(f"{suggestion:.1e}")


def test_a_fall_after_the_loss_has_leapt_is_not_the_fastest() -> None:
    lrs = np.geomspace(1e-6, 1, 150)
    losses = np.array(falling(lrs, 4e-4))
    losses[100:120] = np.linspace(8, 2, 20)
    slopes = np.gradient(losses, np.log10(lrs))
    assert slopes[100:].min() < slopes[:90].min()
    assert RangeTest(lrs.tolist(), losses.tolist()).suggestion == pytest.approx(4e-4, rel=0.1)


def test_noise_alone_suggests_nothing() -> None:
    lrs = np.geomspace(1e-6, 1, 150)
    losses = 2.3 + 0.1 * np.random.default_rng(0).standard_normal(150)
    with pytest.raises(ConfigError, match=r"the loss hardly fell in 150 steps of --find_lr"):
        _ = RangeTest(lrs.tolist(), losses.tolist()).suggestion


def test_the_picture_shows_the_curve_and_the_suggestion(fit: Command) -> None:
    outcome = fit("--find_lr", "--trainer.max_epochs", "1")
    assert "; lightning_logs/version_0/find_lr.png\n" in outcome.out
    picture = np.asarray(Image.open(LOGS / "version_0" / "find_lr.png").convert("RGB"))[60:-60].astype(int)
    blue, vermilion = (np.abs(picture - colour).sum(axis=2) == 0 for colour in ((0, 114, 178), (213, 94, 0)))
    columns = blue.any(axis=0).nonzero()[0]
    lrs, _ = table()
    share = np.log(found_lr() / lrs[0]) / np.log(lrs[-1] / lrs[0])
    assert vermilion.any(axis=0).nonzero()[0].mean() == pytest.approx(
        columns[0] + share * (columns[-1] - columns[0]), abs=4
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.lr", "1e-3"], "find_lr looks for what --model.lr sets; give one of the two"),
        (["--model.lr=1e-3", "--config", "find.yaml"], "find_lr in find.yaml, line 1 looks for what --model.lr sets"),
        (["--trainer.fast_dev_run", "true"], "find_lr is for a run that is kept, and trainer.fast_dev_run keeps none"),
        (["--trainer.limit_train_batches", "0"], "--find_lr found nothing to learn from"),
        (["--model.weight_decay", "1e40"], "the loss diverged at step "),
        (["--model.label_smoothing", "0.9999"], "the loss hardly fell in "),
        (["--find_lr", "maybe"], "find_lr must be bool, got maybe"),
    ],
)
def test_what_can_suggest_nothing_costs_a_line_and_leaves_no_run(
    fit: Command, tmp_path: Path, args: list[str], message: str
) -> None:
    (tmp_path / "find.yaml").write_text("find_lr: true\n")
    outcome = fit("--find_lr", *args)
    assert outcome.code == 2
    (error,) = [line for line in outcome.err.splitlines() if "using the four files" not in line]
    assert error.startswith("error: ")
    assert message in error
    assert not [*tmp_path.glob("*/version_*")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_it_searches_it_leaves_no_run(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    stop_at(20, monkeypatch, number)
    assert fit("--find_lr").code == code
    assert not [*tmp_path.glob("*/version_*")]


def test_a_run_that_goes_on_does_not_search_again(fit: Command, command: Command, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "1", "--find_lr").code == 0
    lr = found_lr()
    refused = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--find_lr")
    assert refused.code == 2
    assert "find_lr is for a run that begins, and ckpt_path for one that goes on" in refused.err
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert resumed.code == 0, resumed.err
    assert "trainer.max_epochs: 1 so far, 2 from here on" in resumed.out
    assert "lr: " not in resumed.out
    assert content(tmp_path / CHECKPOINTS / "version_0")["optimizer_states"][0]["param_groups"][0]["lr"] == lr


def test_a_run_older_than_the_option_goes_on_without_a_word_of_it(fit: Command, command: Command) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    config = LOGS / "version_0" / "config.yaml"
    config.write_text(config.read_text().replace("find_lr: false\n", ""))
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert resumed.code == 0, resumed.err
    assert "find_lr" not in resumed.out + resumed.err


def test_a_config_can_ask_for_it_and_the_command_line_can_say_no(fit: Command, tmp_path: Path) -> None:
    (tmp_path / "find.yaml").write_text("find_lr: true\nmodel: {lr: 0.5}\n")
    options = ("--config", "find.yaml", "--trainer.max_epochs", "1")
    assert fit(*options).code == 0
    assert fit(*options, "--find_lr", "false").code == 0
    assert found_lr(0) < 0.1
    assert found_lr(1) == 0.5
    assert not (LOGS / "version_1" / "find_lr.csv").exists()


def test_each_run_of_a_repetition_searches_for_itself(command: Command, digits_dir: Path) -> None:
    options = ("--data.data_dir", str(digits_dir), "--data.val_size", "60", "--trainer.max_epochs", "1")
    assert command("repeat", "--runs", "2", *options, "--find_lr").code == 0
    assert not np.array_equal(table(0)[1][:10], table(1)[1][:10])
