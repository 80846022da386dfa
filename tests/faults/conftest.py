"""A trained checkpoint, for the tests that modify it."""

import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_lightning.cli.main import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> dict[str, Any]:
    """The content of the last checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--data.data_dir", str(digits_dir), "--data.val_size", "60", "--trainer.max_epochs", "1"]
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mnist-lightning"])
        with pytest.raises(SystemExit) as stopped:
            main(["fit", *options])
    assert not stopped.value.code
    content: dict[str, Any] = torch.load(folder / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
    return content
