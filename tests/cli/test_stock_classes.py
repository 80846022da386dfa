"""Lightning's own callbacks and precisions in a run that is resumed and tested."""

from pathlib import Path

import pytest
import torch

from tests.conftest import Command


@pytest.mark.slow
def test_an_average_of_lightnings_own_resumes_exactly(fit: Command, command: Command, tmp_path: Path) -> None:
    options = ("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5", "--tensorboard.figures=none")
    assert fit("--trainer.max_epochs", "2", *options).code == 0
    assert fit("--trainer.max_epochs", "1", *options).code == 0
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0
    unbroken, resumed = (torch.load(tmp_path / f"checkpoints/version_{n}/last.ckpt", weights_only=True) for n in (0, 1))
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in unbroken[part].items())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_weights_of_any_precision_are_tested_and_resumed(precision: str, fit: Command, command: Command) -> None:
    assert fit("--trainer.max_epochs", "1", "--trainer.precision", precision, "--tensorboard.figures", "none").code == 0
    assert "test accuracy" in command("test").out
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0
