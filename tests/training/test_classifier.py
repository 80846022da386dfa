from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_lightning import Classifier, MNISTDataModule, SimpleCNN
from mnist_lightning.data.samples import Batch
from mnist_lightning.training import environment
from mnist_lightning.training import trainer as trainer_module
from mnist_lightning.training.environment import native_precision
from mnist_lightning.training.trainer import AutoTrainer
from tests.conftest import DIGITS_MEAN, DIGITS_STD, Command
from tests.training.bits import scalars


def test_training_is_adam_on_cross_entropy_over_the_shuffled_batches(digits_dir: Path, tmp_path: Path) -> None:
    data = MNISTDataModule(str(digits_dir), val_size=60, batch_size=32, seed=7)
    seed_everything(7)
    classifier = Classifier(conv_dropout=0, fc_dropout=0)
    network = SimpleCNN(0, 0)
    network.load_state_dict(classifier.network.state_dict())
    Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(classifier, data)  # fmt: skip

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    train = data.samples("train")
    images, labels = train.inputs, train.labels
    for epoch in range(2):
        order = train.indices[np.random.default_rng([7, epoch]).permutation(240)]
        for start in range(0, 240, 32):
            batch = order[start : start + 32]
            pixels = (images[batch].float().div(255) - DIGITS_MEAN) / DIGITS_STD
            optimizer.zero_grad()
            loss = F.cross_entropy(network(pixels.unsqueeze(1)), labels[batch])
            for parameter, gradient in zip(
                network.parameters(), torch.autograd.grad(loss, tuple(network.parameters())), strict=True
            ):
                parameter.grad = gradient
            optimizer.step()
    # Another memory layout and the fused optimizer round differently; Adam's first steps are 1e-3 long.
    for ours, theirs in zip(classifier.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)


def test_the_learning_rate_follows_torchs_own_plateau_schedule(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.7, 0.8, 0.9]

    def on_validation_epoch_end(self: Classifier) -> None:
        self.val_metrics.reset()
        self.log_dict({"val_loss": losses[self.current_epoch], "val_acc": 0.5})

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", on_validation_epoch_end)
    outcome = fit("--trainer.max_epochs", str(len(losses)), "--early_stopping.enabled", "false",
                  "--trainer.limit_train_batches", "1")  # fmt: skip
    assert outcome.code == 0, outcome.err

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.001)
    schedule = ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=2)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(loss)
    rates = [value for _, value in scalars(tmp_path / "lightning_logs" / "version_0")["Learning rate"]]
    assert rates == pytest.approx(expected)
    assert len(set(expected)) == 3, "the losses were chosen to bring two cuts"
    assert outcome.out.count("stopped improving, learning rate") == 2


def test_the_seed_of_the_command_line_reaches_weights_dropout_and_order(
    fit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    training_step = Classifier.training_step

    def record(self: Classifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        drawn.append(torch.rand((), generator=torch.default_generator.clone_state()).item())
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", record)
    fit("--trainer.max_epochs", "1", "--seed_everything", "11")
    for step, number in enumerate(drawn):
        torch.manual_seed(int(np.random.SeedSequence([11, step, 0]).generate_state(1)[0]))
        assert number == torch.rand(()).item()
    checkpoint = torch.load(tmp_path / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
    assert checkpoint["datamodule_hyper_parameters"]["seed"] == 11


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads the CPU's features from the kernel")
def test_bfloat16_is_chosen_if_the_cpu_has_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    native = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    assert native_precision(on_gpu=False) == ("bf16-mixed" if native else "32-true")


@pytest.mark.parametrize("compiled", [True, False])
def test_auto_precision_is_float32_for_a_network_with_kernels(
    compiled: bool, digits_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "kernel_set", lambda: "avx2" if compiled else "torch")
    monkeypatch.setattr(environment, "native_precision", lambda on_gpu: "bf16-mixed")
    monkeypatch.setattr(trainer_module, "native_precision", lambda on_gpu: "bf16-mixed")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = AutoTrainer(max_steps=1, accelerator="cpu", enable_checkpointing=False, limit_val_batches=0, **quiet)
    trainer.fit(Classifier(), MNISTDataModule(str(digits_dir), val_size=60))
    assert trainer.precision == ("32-true" if compiled else "bf16-mixed")
    assert environment.environment(torch.device("cpu"), "32-true")["kernels"] == ("avx2" if compiled else "torch")


def test_a_plain_trainer_returns_the_scores(digits_dir: Path, tmp_path: Path) -> None:
    data, classifier = MNISTDataModule(str(digits_dir), val_size=60), Classifier()
    trainer = Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    (validated,) = trainer.validate(classifier, data, verbose=False)
    (tested,) = trainer.test(classifier, data, verbose=False)
    assert validated.keys() == {"val_loss", "val_acc"}
    assert tested.keys() == {"test_loss", "test_acc"}
