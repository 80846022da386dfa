"""Imports go one way; what must start fast imports nothing heavy."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mnist_lightning"

# From the bottom up: a folder imports from those it names, from itself, and from the modules of `FOUNDATION`.
MAY_IMPORT: dict[str, set[str]] = {
    "models": set(),
    "images": set(),
    "runs": set(),
    "data": {"images"},
    "evaluation": {"models", "data", "runs"},
    "training": {"models", "data", "runs", "evaluation"},
    "inference": {"models", "images", "data", "runs", "evaluation"},
    "cli": {"models", "data", "runs", "evaluation", "training"},
    "tuning": {"models", "data", "runs", "evaluation", "training", "cli"},
    "__main__": {"cli"},
    "__init__": {"models", "data", "training", "inference"},  # the public names, on first use
}
FOUNDATION = {"errors", "console", "atomic_write"}  # these import each other, and nothing else of the package


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
    allowed = MAY_IMPORT.get(layer, set()) | {layer, "__version__"} | FOUNDATION
    assert imported_layers(source) <= allowed


@pytest.mark.parametrize("source", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_the_packages_init_files_import_nothing(source: Path) -> None:
    assert not imported_layers(source)


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import mnist_lightning", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['--version'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['export', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['doctor', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['demo', '--help'])", {"torch", "lightning", "numpy"}),
        ("from mnist_lightning.cli.main import main; main(['repeat', '--help'])", {"torch", "lightning", "numpy"}),
        (
            "from mnist_lightning.cli.main import main; main(['sweep', '--help'])",
            {"torch", "lightning", "numpy", "optuna"},
        ),
        ("import mnist_lightning.inference.demo.server", {"torch", "lightning", "numpy"}),
        ("import mnist_lightning.data.mnist.fetch, mnist_lightning.data.mnist.idx", {"torch", "lightning"}),
        ("import mnist_lightning.data.table.encoder", {"torch", "lightning", "pandas", "sklearn"}),
        ("import mnist_lightning.inference.digits.preprocess", {"torch", "lightning", "torchvision", "scipy"}),
        (
            "from mnist_lightning.cli.main import main; main(['predict', '--help'])",
            {"torch", "lightning", "numpy", "PIL"},
        ),
    ],
)
def test_what_must_start_fast_imports_nothing_heavy(statement: str, heavy: set[str]) -> None:
    script = f"import atexit, sys\natexit.register(lambda: print('MODULES', *sys.modules))\n{statement}"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not heavy & set(out.rpartition("MODULES")[2].split())


NOT_NEEDED_WITH_TORCH = {
    "from mnist_lightning.cli import doctor; [*doctor.check_versions(), *doctor.check_device()]": {"lightning"},
    "import mnist_lightning.inference.export.formats": {"lightning", "torchvision", "torchmetrics", "onnxruntime"},
    "import mnist_lightning.inference.network": {"lightning", "torchvision", "torchmetrics"},
    "from mnist_lightning import Predictor": {"lightning", "torchvision", "torchmetrics", "scipy"},
    "import mnist_lightning.inference.predict.table": {"lightning", "torchvision", "torchmetrics", "pandas"},
    "import mnist_lightning.data.table.datamodule, mnist_lightning.training.callbacks.result_writer": {
        "pandas", "sklearn"
    },
    "import mnist_lightning.runs.run_folders; from mnist_lightning import SimpleCNN": {"lightning", "torchvision"},
}  # fmt: skip
EACH_IN_A_FORK = """
import os, sys
import torch  # which all of them may import, once for all
for statement in sys.argv[1:]:
    if os.fork() == 0:
        exec(statement)
        print("MODULES", *sys.modules, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, statement
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each")
def test_what_needs_torch_imports_nothing_heavier() -> None:
    program = [sys.executable, "-c", EACH_IN_A_FORK, *NOT_NEEDED_WITH_TORCH]
    out = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    loaded = [line.split()[1:] for line in out.splitlines() if line.startswith("MODULES")]
    for (statement, heavy), modules in zip(NOT_NEEDED_WITH_TORCH.items(), loaded, strict=True):
        assert not heavy.intersection(modules), statement
