"""A run stopped after any step and resumed ends with the bits of the unbroken run."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from tests.conftest import Command
from tests.training.bits import assert_same, comparable, content, scalars, stop_at

EPOCHS, BATCHES = 3, 8  # 240 images in batches of 32, the last one short
SGD = ("--model.optimizer", "SGD", "--model.optimizer.momentum", "0.9")

SCENARIOS: dict[str, tuple[str, ...]] = {
    # Dropout always; the schedule cuts after every epoch that is not better.
    "plateau": ("--model.lr", "0.02", "--model.plateau_patience", "0"),
    "accumulation": ("--trainer.accumulate_grad_batches", "3"),
    "two validations an epoch": ("--trainer.val_check_interval", "0.5"),
    # No loss improves by 100: it stops in the last of the three epochs.
    "early stopping": ("--early_stopping.min_delta", "100", "--early_stopping.patience", "2"),
    "no validation": ("--data.val_size", "0"),
    # Every option whose state or randomness a checkpoint must carry on.
    "the best recipe": (
        *("--model.optimizer", "muon", "--model.weight_decay", "0.1", "--model.lr_scheduler", "cosine"),
        *("--model.warmup", "0.2", "--model.ema_decay", "0.9", "--model.label_smoothing", "0.1"),
        *("--data.rotation", "10", "--data.scale", "0.1", "--data.shear", "5", "--data.shift", "2"),
        *("--data.elastic", "1"),
    ),
    # Classes of torch and of the user, by path.
    "StepLR": (*SGD, "--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "1"),
    "OneCycleLR": (
        *(*SGD, "--model.lr_scheduler", "OneCycleLR", "--model.lr_scheduler.max_lr", "0.1"),
        *("--model.lr_scheduler_interval", "step"),
    ),
    "warm restarts": (*SGD, "--model.lr_scheduler", "CosineAnnealingWarmRestarts", "--model.lr_scheduler.T_0", "5"),
    "own network": ("--model.network", "tests.faults.test_every_step.normalized"),
    "counted in steps": ("--trainer.max_epochs", "-1", "--trainer.max_steps", "24"),
}


def normalized(num_classes: int) -> nn.Module:
    """Return a network with running statistics and dropout."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, num_classes)
    )


def check(fit: Command, command: Command, root: Path, options: Sequence[str], stops: Sequence[int]) -> None:
    options = ("--trainer.max_epochs", str(EPOCHS), *options)
    assert fit(*options).code == 0
    unbroken = content(root / "checkpoints" / "version_0")
    for version, batch in enumerate(stops, start=1):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(batch, patch)
            stopped = fit(*options)
        assert stopped.code == 143, f"stopped at batch {batch}: {stopped}"
        resumed = command("fit", "--ckpt_path", "last")
        assert resumed.code == 0, f"stopped at batch {batch}: {resumed}"
        folder = root / "checkpoints" / f"version_{version}"
        again = content(folder)
        assert_same(comparable(again), comparable(unbroken), f"stopped at batch {batch}")
        for key, state in unbroken["callbacks"].items():
            for name in state.keys() & {"wait_count", "best_score", "stopped_epoch", "best_model_score"}:
                assert_same(again["callbacks"][key][name], state[name], f"stopped at batch {batch}: {key} {name}")
        logs = root / "lightning_logs"
        assert scalars(logs / f"version_{version}") == scalars(logs / "version_0"), f"stopped at batch {batch}"
        assert {path.name for path in folder.iterdir()} == {
            path.name for path in (root / "checkpoints" / "version_0").iterdir()
        }


@pytest.mark.parametrize("scenario", ["plateau", "the best recipe"])
def test_a_run_stopped_within_an_epoch_ends_as_if_unbroken(
    fit: Command, command: Command, tmp_path: Path, scenario: str
) -> None:
    check(fit, command, tmp_path, SCENARIOS[scenario], stops=[BATCHES + 3])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_stopped_at_any_step_ends_as_if_unbroken(
    fit: Command, command: Command, tmp_path: Path, scenario: str
) -> None:
    # In the last epoch's last step the run is complete when the signal is honoured: it has nothing to resume.
    check(fit, command, tmp_path, SCENARIOS[scenario], stops=range(EPOCHS * BATCHES - 1))
