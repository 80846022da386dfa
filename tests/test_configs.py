"""Every shipped config runs as it is, on small data."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from mnist_lightning.tuning.search_space import read_sweep
from tests.conftest import TEST_COUNT, Command
from tests.data.image_folder.small_images import write_shapes
from tests.data.table.tables import write_iris

ALL_CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
COMMANDS = {"sweep": "sweep"}  # the configs of other commands than `fit`
CONFIGS = [config for config in ALL_CONFIGS if config.stem not in COMMANDS]
IMAGE_CONFIGS = [path for path in CONFIGS if path.stem not in ("tabular", "pictures")]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("config", IMAGE_CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_trains_and_tests(command: Command, digits_dir: Path, tmp_path: Path, config: Path) -> None:
    options = yaml.safe_load(config.read_text())
    val_size = "60" if options["data"].get("val_size") else "0"
    small = ("--data.data_dir", str(digits_dir), "--data.val_size", val_size, "--trainer.max_epochs", "1")
    trained = command("fit", "--config", str(config), *small)
    assert trained.code == 0, trained.err
    if not options.get("test_after_fit"):
        assert command("test").code == 0
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["total"] == TEST_COUNT


@pytest.mark.parametrize("config", ALL_CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_starts_with_its_command(config: Path) -> None:
    command = COMMANDS.get(config.stem, "fit")
    assert config.read_text().startswith(f"# python -m mnist_lightning {command} --config configs/{config.name}")


def test_the_shipped_sweep_searches_over_options_of_its_shared_config() -> None:
    config = read_sweep(ALL_CONFIGS[0].parent / "sweep.yaml")
    shared = yaml.safe_load((ALL_CONFIGS[0].parents[1] / config.fit["config"]).read_text())
    for name in config.space:
        section, option = name.split(".")
        assert option in shared[section], name


@pytest.mark.usefixtures("undrawn")
def test_the_table_config_learns_irises(command: Command, tmp_path: Path) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "tabular")
    write_iris(tmp_path / "mine.csv")
    table = ("--data.csv_file", "mine.csv", "--data.target", "species")
    trained = command("fit", "--config", str(config), *table, "--tensorboard.figures", "none")
    assert trained.code == 0, trained.err
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["total"] == 22
    assert result["correct"] >= 19  # linear discriminant analysis classifies 98 % of irises correctly; this is 86 %


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_image_folder_config_learns_shapes(command: Command, tmp_path: Path) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "pictures")
    write_shapes(tmp_path / "mine", 40)
    few = ("--trainer.max_epochs", "16", "--tensorboard.figures", "none")
    trained = command("fit", "--config", str(config), "--data.folder", "mine", *few)
    assert trained.code == 0, trained.err
    result = json.loads((tmp_path / "lightning_logs" / "version_0" / "test.json").read_text())
    assert result["total"] == 18
    assert result["correct"] >= 15  # guessing gives 6


def test_each_cut_of_the_learning_rate_has_epochs_to_show_whether_it_helps() -> None:
    """With a loss that never improves again, no cut comes in the last two epochs, and the first has five to act."""
    config = yaml.safe_load(ALL_CONFIGS[0].with_name("default.yaml").read_text())
    options, patience = config["model"], config["early_stopping"]["patience"]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=options["plateau_factor"], patience=options["plateau_patience"]
    )
    rates = []
    for _ in range(1 + patience):  # the best epoch, and those without improvement until training stops
        schedule.step(1.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[-3] == rates[-1]
    assert patience - rates.index(0.5) >= 5
