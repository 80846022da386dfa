"""`compare`: whether two tested runs differ by more than chance."""

import re
from pathlib import Path

from mnist_lightning.console import CommandParser, print_stderr
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.mcnemar import compare
from mnist_lightning.evaluation.predictions import PREDICTIONS, read_hits
from mnist_lightning.evaluation.subject import Subject, read_sidecar
from mnist_lightning.runs import run_folders

DESCRIPTION = """\
Compare two tested runs on the same test samples with McNemar's exact test. It counts the samples that only one of the
two runs predicts correctly, and returns the probability of a split at least as uneven as this one if both runs had the
same error rate. The test is about these two trained networks; use `repeat` to compare options over several seeds."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code. A run that was not tested on the same samples is a ConfigError."""
    parser = CommandParser("compare", DESCRIPTION, "compare version_3 version_5")
    parser.add_argument(
        "runs",
        nargs=2,
        metavar="RUN",
        help="a tested run, such as version_3; version_3/last for the result of another checkpoint",
    )
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
    (hits, subject), (other_hits, other) = (_read(name, options.root) for name in options.runs)
    refusal = f"{first} and {second} were not tested on the same samples"
    if subject and other and subject.samples_sha256 != other.samples_sha256:
        raise ConfigError(f"{refusal}: {', '.join(subject.data)} and {', '.join(other.data)} differ")
    try:
        result = compare(hits, other_hits)
    except ValueError:
        raise ConfigError(refusal) from None
    if not subject or not other:
        print_stderr(f"{first if not subject else second} was tested by an older version, which kept no digests")
    elif subject.kind != other.kind:
        print(f"different kinds of checkpoint: {first} {subject.kind}, {second} {other.kind}")
    for name, correct in zip(options.runs, result.correct, strict=True):
        print(f"{name}: {correct:,}/{result.total:,} = {100 * correct / result.total:.2f} %")
    print(f"correct only in {first}: {result.only_first}; correct only in {second}: {result.only_second}")
    print(f"McNemar's exact test, two-sided: p = {result.p_value:.3g}")
    return 0


def _read(name: str, root: Path) -> tuple[dict[tuple[int, int], bool], Subject | None]:
    if not (match := re.fullmatch(f"({run_folders.VERSION})(?:/(.+))?", name)):
        raise ConfigError(f"{name} is not a run; runs are named version_0, version_1, …, version_1/last")
    suffix = "" if match[3] in (None, "best") else f"_{match[3]}"
    path = run_folders.Run(root, int(match[2])).logs / PREDICTIONS.format(suffix)
    return read_hits(path), read_sidecar(path)
