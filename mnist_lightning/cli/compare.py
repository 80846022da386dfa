"""`compare`: whether two tested runs differ by more than chance."""

import re
from pathlib import Path

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.mcnemar import compare
from mnist_lightning.evaluation.predictions import PREDICTIONS, Row, read_predictions
from mnist_lightning.runs import run_folders

DESCRIPTION = """\
Compare two tested runs on the same test samples with McNemar's exact test. It counts the samples that only one of the
two runs predicts correctly, and returns the probability of a split at least as uneven as this one if both runs had the
same error rate. The test is about these two trained networks; use `repeat` to compare options over several seeds."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code.

    Args:
        args: The command line after `compare`.

    Raises:
        ConfigError: If a run was not tested, or the runs were not tested on the same samples.
    """
    parser = CommandParser("compare", DESCRIPTION, "compare version_3 version_5")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a tested run, such as version_3")
    parser.add_argument(
        "--trainer.default_root_dir",
        dest="root",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="the folder that contains lightning_logs (default: the current folder)",
    )
    options = parser.parse_args(args)
    first, second = options.runs
    rows = [_read(name, options.root) for name in options.runs]
    try:
        result = compare(*rows)
    except ValueError:
        raise ConfigError(f"{first} and {second} were not tested on the same samples") from None
    for name, correct in zip(options.runs, result.correct, strict=True):
        print(f"{name}: {correct:,}/{result.total:,} = {100 * correct / result.total:.2f} %")
    print(f"correct only in {first}: {result.only_first}; correct only in {second}: {result.only_second}")
    print(f"McNemar's exact test, two-sided: p = {result.p_value:.3g}")
    return 0


def _read(name: str, root: Path) -> list[Row]:
    if not (match := re.fullmatch(run_folders.VERSION, name)):
        raise ConfigError(f"{name} is not a run; runs are named version_0, version_1, …")
    return read_predictions(run_folders.Run(root, int(match[1])).logs / PREDICTIONS)
