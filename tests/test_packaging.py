"""What the built wheel contains."""

import tomllib
from pathlib import Path

import mnist_lightning

PACKAGE = Path(mnist_lightning.__file__).parent


def test_the_wheel_contains_every_file_of_the_package() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["mnist_lightning"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    compiled = (".pyc", ".so")  # in this folder only after `pip install -e`
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", *compiled)}
    assert others == packaged
