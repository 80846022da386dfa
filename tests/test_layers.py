"""Imports go one way; what must start fast imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mnist_lightning"

# From the bottom up: a layer may import from those it names, from itself, and from `errors` and `terminal`.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "terminal": set(),
    "durable": set(),
    "command_parser": set(),
    "models": set(),
    "data": {"durable"},
    "calibration": set(),
    "manifest": set(),
    "checkpoint_file": {"manifest"},
    "runs": {"durable", "checkpoint_file", "manifest"},
    "answers_file": set(),
    "training": {"answers_file", "models", "data", "runs", "checkpoint_file", "manifest", "durable", "calibration"},
    "inference": {"models", "data", "runs", "checkpoint_file", "durable", "calibration", "command_parser"},
    "doctor": {"data", "training", "command_parser"},
    "config_guard": set(),
    "option_parser": set(),
    "option_changes": set(),
    "data_kinds": {"data", "training", "runs", "checkpoint_file", "config_guard", "option_parser"},
    "option_groups": {"data_kinds", "training", "option_parser"},
    "saved_options": {"runs", "durable", "data_kinds", "option_groups", "option_changes"},
    "resumption": {"data", "runs", "training", "config_guard", "option_changes", "saved_options"},
    "trainer_cli": {
        "models",
        "data",
        "data_kinds",
        "runs",
        "checkpoint_file",
        "durable",
        "training",
        "option_parser",
        "option_groups",
        "option_changes",
        "saved_options",
        "resumption",
        "config_guard",
    },
    "cli": {"trainer_cli"},
    "compare": {"runs", "answers_file", "command_parser"},
    "repeat": {"cli", "training", "runs", "manifest", "durable", "config_guard", "command_parser"},
    "sweep": {
        "cli",
        "trainer_cli",
        "training",
        "runs",
        "durable",
        "option_parser",
        "option_changes",
        "saved_options",
        "config_guard",
        "command_parser",
    },
    "__main__": {"cli"},
    "__init__": {"models", "data", "training", "inference"},  # the public names, on first use
}


def imported_layers(source: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{source}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules.update(names if node.module == "mnist_lightning" else [node.module])
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return {module.split(".")[1] for module in modules if module.startswith("mnist_lightning.")}


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(source: Path) -> None:
    layer = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[layer] | {layer, "errors", "terminal", "__version__"}
    assert imported_layers(source) <= allowed


@pytest.mark.parametrize("source", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_the_packages_init_files_import_nothing(source: Path) -> None:
    assert not imported_layers(source)


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import mnist_lightning", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['--version'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['export', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['doctor', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['demo', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['repeat', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli import main; main(['sweep', '--help'])", {"torch", "lightning", "numpy", "optuna"}),
        ("import mnist_lightning.inference.page_server", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning import doctor; [*doctor.check_versions(), *doctor.check_device()]", {"lightning"}),
        ("import mnist_lightning.inference.formats", {"lightning", "torchvision", "torchmetrics", "onnxruntime"}),
        ("import mnist_lightning.data.sources, mnist_lightning.data.idx", {"torch", "lightning"}),
        ("import mnist_lightning.inference.trained", {"lightning", "torchvision", "torchmetrics"}),
        ("from mnist_lightning import Predictor", {"lightning", "torchvision", "torchmetrics", "scipy"}),
        ("import mnist_lightning.inference.predict_table", {"lightning", "torchvision", "torchmetrics", "pandas"}),
        ("import mnist_lightning.data.table_spec", {"torch", "lightning", "pandas", "sklearn"}),
        ("import mnist_lightning.data.tabular, mnist_lightning.training.table_report", {"pandas", "sklearn"}),
        ("import mnist_lightning.data.pictures", {"torch", "lightning", "torchvision", "scipy"}),
        ("from mnist_lightning.cli import main; main(['predict', '--help'])", {"torch", "lightning", "numpy", "PIL"}),
        ("import mnist_lightning.runs; from mnist_lightning import SimpleCNN", {"lightning", "torchvision"}),
    ],
)
def test_what_must_start_fast_imports_nothing_heavy(statement: str, heavy: set[str]) -> None:
    script = f"import atexit, sys\natexit.register(lambda: print('MODULES', *sys.modules))\n{statement}"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not heavy & set(out.rpartition("MODULES")[2].split())
