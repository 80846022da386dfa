"""`sweep`: a search by Optuna, in which each trial is a `fit`."""

from importlib.util import find_spec
from pathlib import Path

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import ConfigError

DESCRIPTION = """\
Search for good options: Optuna chooses the options of many `fit` runs (TPE) and prunes those that fall behind the
median. The config defines the search; configs/sweep.yaml shows every key. The sweep's folder contains the study, the
runs and, at the end, trials.csv, plots.html and best.yaml, a config for `fit`. An interrupted or killed sweep resumes
with the same command; in a second terminal, the same command runs further trials at the same time. A sweep never reads
the test images."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code: 0 done, 1 no trial has a score."""
    parser = CommandParser("sweep", DESCRIPTION, "sweep --config configs/sweep.yaml")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the search, as YAML")
    options = parser.parse_args(args)
    if missing := [package for package in ("optuna", "plotly") if find_spec(package) is None]:
        raise ConfigError(f"sweep needs {', '.join(missing)}: pip install 'mnist-lightning[sweep]'")
    # Imported here because they take seconds, and `--help` needs none of them.
    from mnist_lightning.tuning.search_space import read_sweep
    from mnist_lightning.tuning.study import run_sweep

    return run_sweep(read_sweep(options.config))
