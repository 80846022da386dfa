"""`compare`: whether two runs differ by more than chance, by what each answered to the same test images."""

import math
import re
from pathlib import Path

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.predictions_file import ANSWERS, read_answers
from mnist_lightning.runs import run_folders

DESCRIPTION = """\
Compare two tested runs on the same test images with McNemar's exact test: of the images that only one of them answers
right, how likely is a split as uneven as this, or more, if both were as good as each other? It says how sure the
difference between these two trainings is; other seeds of the same options are for `repeat` to show."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code.

    Args:
        args: The command line after `compare`.

    Raises:
        ConfigError: If a run was not tested, or not on the same images.
    """
    parser = CommandParser("compare", DESCRIPTION, "compare version_3 version_5")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a tested run, such as version_3")
    parser.add_argument(
        "--trainer.default_root_dir",
        dest="root",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="the folder of lightning_logs (default: this one)",
    )
    options = parser.parse_args(args)
    first, second = (_right(name, options.root) for name in options.runs)
    if first.keys() != second.keys():
        raise ConfigError(f"{options.runs[0]} and {options.runs[1]} were not tested on the same images")
    only_first = sum(right and not second[image] for image, right in first.items())
    only_second = sum(right and not first[image] for image, right in second.items())
    for name, right in zip(options.runs, (first, second), strict=True):
        print(f"{name}: {sum(right.values()):,}/{len(right):,} = {100 * sum(right.values()) / len(right):.2f} %")
    print(f"right only in {options.runs[0]}: {only_first}; right only in {options.runs[1]}: {only_second}")
    print(f"McNemar's exact test, two-sided: p = {mcnemar(only_first, only_second):.3g}")
    return 0


def mcnemar(b: int, c: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Under the hypothesis that both are as good as each other, b is binomial with b + c trials of probability 1/2
    (McNemar 1947, Psychometrika 12, 153-157; its exact form is the sign test).

    Args:
        b: Images that only the first answers right, at least 0.
        c: Images that only the second answers right, at least 0.

    >>> mcnemar(0, 5), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return float(min(1, 2 * tail / 2 ** (b + c)))


def _right(name: str, root: Path) -> dict[tuple[int, int], bool]:
    """Return for each image, by its place and label, whether a run answers it right."""
    if not (match := re.fullmatch(run_folders.VERSION, name)):
        raise ConfigError(f"{name} is no run; runs are called version_0, version_1, …")
    answers = read_answers(run_folders.Run(root, int(match[1])).logs / ANSWERS)
    return {(row.image, row.label): row.label == row.answer for row in answers}
