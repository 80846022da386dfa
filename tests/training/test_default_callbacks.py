from pathlib import Path

import torch

from mnist_lightning import Classifier, default_callbacks
from tests.data.test_loader_in_lightning import Recorder, make_data, quiet_trainer
from tests.test_library_use import ForeignData


def test_a_stock_trainer_resumes_exactly(digits_dir: Path, tmp_path: Path) -> None:
    unbroken, stopped = Classifier(), Classifier()
    stopped.load_state_dict(unbroken.state_dict())
    for classifier, epochs, folder in ((unbroken, 3, "whole"), (stopped, 1, "part")):
        callbacks = default_callbacks(seed=3)
        root = tmp_path / folder
        trainer = quiet_trainer(root, max_epochs=epochs, enable_checkpointing=True, callbacks=callbacks)
        trainer.fit(classifier, make_data(digits_dir))
    (path,) = (tmp_path / "part").rglob("*.ckpt")
    resumed = Classifier()
    trainer = quiet_trainer(tmp_path / "rest", max_epochs=3, enable_checkpointing=True, callbacks=default_callbacks(3))
    trainer.fit(resumed, make_data(digits_dir), ckpt_path=path, weights_only=True)
    for ours, theirs in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "calibration" in torch.load(path, weights_only=True)


def test_foreign_data_and_models_work(digits_dir: Path, tmp_path: Path) -> None:
    options = {"max_epochs": 1, "enable_checkpointing": True}
    quiet_trainer(tmp_path, callbacks=default_callbacks(), **options).fit(Classifier(), ForeignData())
    quiet_trainer(tmp_path / "a", callbacks=default_callbacks(), **options).fit(Recorder(), make_data(digits_dir))
