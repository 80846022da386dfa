from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning import Classifier, MNISTDataModule
from tests.conftest import Command
from tests.training.bits import content


class Recorder(Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.after: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self.after.append(pl_module.network.fc2.weight.detach().clone())  # type: ignore[union-attr, operator]


def test_the_mean_of_the_weights_is_what_training_leaves(digits_dir: Path, tmp_path: Path) -> None:
    data = MNISTDataModule(str(digits_dir), val_size=60, batch_size=32)
    classifier, recorder = Classifier(ema_decay=0.9), Recorder()
    Trainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=recorder,
    ).fit(classifier, data)  # fmt: skip
    mean = recorder.after[0].double()
    for weight in recorder.after[1:]:
        mean = 0.9 * mean + 0.1 * weight.double()
    torch.testing.assert_close(classifier.network.fc2.weight.double(), mean, rtol=0, atol=1e-6)


def test_the_mean_is_saved_as_the_network_and_scored(fit: Command, command: Command, tmp_path: Path) -> None:
    assert fit("--model.ema_decay", "0.5", "--trainer.max_epochs", "3").code == 0
    saved = content(tmp_path / "checkpoints" / "version_0")
    mean, trained = saved["state_dict"], saved["current_model_state"]
    assert not torch.equal(mean["network.fc2.weight"], trained["network.fc2.weight"])
    scored = command("validate", "--ckpt_path", "last")
    assert scored.code == 0, scored.err
    assert f"loss {saved['metrics']['val_loss']:.4f}" in scored.out
