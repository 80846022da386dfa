import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from mnist_lightning.training.optim.schedule import lr_factor
from tests.conftest import Command


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_a_warm_up_the_factor_is_that_of_torchs_own_schedule(schedule: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    if schedule == "cosine":
        theirs: CosineAnnealingLR | LinearLR = CosineAnnealingLR(optimizer, T_max=10)
    else:
        theirs = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=10)
    for step in range(11):
        ours = lr_factor(step / 10, schedule=schedule, warmup=0.0)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_the_rate_rises_and_falls_over_the_whole_training(fit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def record(self: torch.optim.Adam, *args: object, **kwargs: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    # 8 batches an epoch, two to a step: 4 steps, three times.
    outcome = fit(
        "--model.lr_scheduler", "cosine", "--model.warmup", "0.25", "--model.lr", "0.002", "--trainer.max_epochs", "3",
        "--trainer.accumulate_grad_batches", "2",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    progress = [step / 13 for step in range(1, 13)]
    falls = [0.5 * (1 + math.cos(math.pi * (done - 0.25) / 0.75)) for done in progress]
    expected = [0.002 * (done / 0.25 if done < 0.25 else fall) for done, fall in zip(progress, falls, strict=True)]
    assert rates == pytest.approx(expected)


def test_a_schedule_that_needs_an_end_is_refused_without_one(fit: Command) -> None:
    outcome = fit("--model.lr_scheduler", "linear", "--trainer.max_epochs", "-1")
    assert outcome.code == 2
    assert "set trainer.max_epochs or trainer.max_steps" in outcome.err
