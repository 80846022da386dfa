"""Training that diverges stops before the step that would spoil the weights, and reports where."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist_lightning import Classifier
from mnist_lightning.data.samples import Batch
from mnist_lightning.errors import DivergenceError
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from tests.conftest import Command
from tests.training.bits import assert_same, content

BATCHES = 8


def finite(folder: Path) -> bool:
    return all(value.isfinite().all() for value in content(folder)["state_dict"].values())


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_stops_before_its_step(
    fit: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    original = Classifier.training_step

    def training_step(self: Classifier, batch: Batch, batch_idx: int) -> Tensor:
        loss = original(self, batch, batch_idx)
        return loss * value if self.global_step == BATCHES + 3 else loss

    options = ("--trainer.max_epochs", "2", "--checkpoint.every_n_steps", "1")
    assert fit(*options).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", training_step)
        outcome = fit(*options)
    assert outcome.code == 3
    assert f"epoch 1, batch 3, step {BATCHES + 3}: the loss is {value}" in outcome.err
    diverged = tmp_path / "checkpoints" / "version_1"
    assert content(diverged)["global_step"] == BATCHES + 3
    assert finite(diverged)
    # What was saved is the state before the step: without the fault, the run ends as one that never had it.
    assert command("fit", "--ckpt_path", "last").code == 0
    assert_same(content(diverged)["state_dict"], content(tmp_path / "checkpoints" / "version_0")["state_dict"])


def test_a_gradient_that_is_not_finite_stops_before_its_step(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_after_backward(self: Classifier) -> None:
        if self.global_step == BATCHES + 2:
            gradient = self.network.fc2.bias.grad
            assert gradient is not None
            gradient[3] = float("inf")

    monkeypatch.setattr(Classifier, "on_after_backward", on_after_backward)
    outcome = fit("--trainer.max_epochs", "2")
    assert outcome.code == 3
    assert f"epoch 1, batch 2, step {BATCHES + 2}: the norm of the gradient is inf" in outcome.err
    assert finite(tmp_path / "checkpoints" / "version_0")


def test_an_absurd_learning_rate_diverges_and_says_so(fit: Command) -> None:
    outcome = fit("--model.lr", "1e30", "--trainer.max_epochs", "2")
    assert outcome.code == 3
    assert "Try a lower --model.lr" in outcome.err


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    weights = {"network.fc2.bias": torch.tensor([0.0, float("nan")])}
    with pytest.raises(DivergenceError, match=r"network\.fc2\.bias is not finite at step 7"):
        DurableCheckpointIO().save_checkpoint(
            {"state_dict": weights, "epoch": 0, "global_step": 7}, tmp_path / "x.ckpt"
        )
    assert not list(tmp_path.iterdir())
