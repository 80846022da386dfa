from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mnist_lightning import Classifier
from mnist_lightning.data.image_schema import MNIST_SCHEMA, ImageSchema
from mnist_lightning.errors import CheckpointError
from mnist_lightning.evaluation.calibration import Calibration
from mnist_lightning.inference.network import load_network
from tests.conftest import DIGITS_MEAN, DIGITS_STD, Command
from tests.inference.conftest import TrainedRun


def test_a_network_gives_the_same_logits_as_load_from_checkpoint(fit: Command, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "2").code == 0
    trained = load_network(ImageSchema, "best", tmp_path)
    own = replace(MNIST_SCHEMA, mean=DIGITS_MEAN, std=DIGITS_STD, own_sha256=trained.schema.own_sha256)
    assert trained.schema == own
    assert len(own.own_sha256) == 64
    assert trained.run is not None
    assert trained.run.version == 0
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    theirs = Classifier.load_from_checkpoint(trained.path, weights_only=True).eval()
    # Another memory layout sums in another order: some units in the last place of logits up to 10.
    torch.testing.assert_close(trained.network(images), theirs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("inputs", [None, {}, 7, {"height": 28}, {"mean": "0.1"}])
def test_a_checkpoint_without_a_valid_schema_is_refused(fit: Command, tmp_path: Path, inputs: object) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    path = tmp_path / "other.ckpt"
    checkpoint = torch.load(tmp_path / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
    partial = isinstance(inputs, dict) and "mean" in inputs
    torch.save(checkpoint | {"inputs": checkpoint["inputs"] | inputs if partial else inputs}, path)
    with pytest.raises(CheckpointError, match="does not define what its network takes"):
        load_network(ImageSchema, str(path))


def test_a_network_trained_without_validation_is_uncalibrated(trained_run: TrainedRun, tmp_path: Path) -> None:
    checkpoint = torch.load(trained_run.best, weights_only=True)
    del checkpoint["calibration"]
    torch.save(checkpoint, tmp_path / "plain.ckpt")
    assert load_network(ImageSchema, str(tmp_path / "plain.ckpt")).calibration == Calibration(
        temperature=1.0, unsure_below=0.9
    )
