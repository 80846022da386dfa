"""`~` is the home folder in every path, on the command line and in config files; no folder is called `~`."""

import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mnist_lightning import MNISTDataModule
from mnist_lightning.tuning.search_space import read_sweep
from tests.conftest import Command


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_every_command_takes_the_home_folder(
    command: Command, digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, options = tmp_path / "home", {"val_size": 60, "data_dir": "~/data"}
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    shutil.copytree(digits_dir, home / "data")
    digit = Image.new("L", (28, 28))
    digit.paste(255, (12, 4, 16, 24))
    digit.save(home / "one.png")
    config = {"data": options, "trainer": {"default_root_dir": "~/runs", "max_epochs": 1, "limit_train_batches": 2}}
    (home / "fit.yaml").write_text(yaml.safe_dump(config))
    root, last = "--trainer.default_root_dir=~/runs", "--ckpt_path=~/runs/checkpoints/version_0/last.ckpt"
    for args in (
        ("fit", "--config=~/fit.yaml"),
        ("fit", "--config", "~/fit.yaml", last, "--trainer.max_epochs=2"),
        ("test", root, last),
        ("predict", "~/one.png", last, "--output=~/labels.csv"),
        ("export", last, "--format=safetensors", "--output=~/net.safetensors", "--data.data_dir=~/data"),
    ):  # fmt: skip
        outcome = command(*args)
        assert outcome.code == 0, outcome.err
    assert (home / "runs/lightning_logs/version_0/test_last.json").is_file()
    assert (home / "runs/lightning_logs/version_1/config.yaml").is_file()
    assert (home / "labels.csv").is_file()
    assert (home / "net.safetensors").is_file()
    assert str(home / "data") in command("doctor", "--data.data_dir=~/data").out
    assert not [path for path in tmp_path.rglob("*") if "~" in path.name]


def test_configs_of_sweeps_and_data_modules_take_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    space = {"model.lr": {"low": 0.1, "high": 1.0}}
    config = {"study": {"name": "s", "folder": "~/s"}, "fit": {"data.data_dir": "~/d"}, "space": space}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    sweep = read_sweep(tmp_path / "sweep.yaml")
    assert sweep.folder == tmp_path / "s"
    assert sweep.fit["data.data_dir"] == str(tmp_path / "d")
    assert MNISTDataModule("~/d").folder == tmp_path / "d" / "MNIST" / "raw"
