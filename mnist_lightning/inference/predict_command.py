"""`predict`: label a person's pictures, on the screen and into a file. Torch is imported when there is work to do."""

import argparse
import io
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning.command_parser import CommandParser
from mnist_lightning.errors import PictureError, StorageError, printable
from mnist_lightning.inference.labels import Screen, write_labels
from mnist_lightning.inference.prediction import UNSURE_BELOW, Prediction

if TYPE_CHECKING:
    from mnist_lightning.data.pictures import PreparedPicture

PICTURES_AT_ONCE = 16  # between two looks of the user at the screen
PROGRESS_AFTER_S = 2.0
SOME_FAILED, NOTHING_LABELLED = 1, 4  # exit codes
OUTPUT_CLOSED = 141  # what a shell reports of a program whose reader went away

EXAMPLES = """\
  python -m mnist_lightning predict digit.png
  python -m mnist_lightning predict photos scans/seven.tif --output labels.csv
  python -m mnist_lightning predict photos --save_inputs seen
  python -m mnist_lightning predict chalk.jpg --ink light --ckpt_path version_3/best
"""


def main(args: list[str]) -> int:
    """Run the command; return its exit code: 0 all labelled, 1 some pictures failed, 4 none was labelled.

    Args:
        args: The command line after `predict`.

    Raises:
        CheckpointError: If there is no trained network, or it is damaged.
        ConfigError: If an option is wrong.
        StorageError: If a result cannot be written.
    """
    parser = make_parser()
    if not args:
        parser.print_help()
        return 2
    options = parser.parse_args(args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        return run(options)
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser("predict", "Label pictures of handwritten digits.", EXAMPLES)
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="a PNG, JPEG, BMP, WebP, TIFF or GIF picture of one digit, or a folder: all pictures in it and in the "
        "folders in it, except hidden ones",
    )
    parser.add_argument(
        "--ckpt_path",
        default="best",
        help="best or last of the newest run, version_3/best, version_3/last, or a checkpoint file (default: best)",
    )
    parser.add_argument(
        "--default_root_dir",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="folder that holds lightning_logs and checkpoints, as fit's --trainer.default_root_dir (default: here)",
    )
    parser.add_argument(
        "--ink",
        choices=("auto", "dark", "light"),
        default="auto",
        help="whether the ink is darker or lighter than the paper (default: auto, which finds out for each picture)",
    )
    parser.add_argument(
        "--unsure_below",
        type=fraction,
        default=UNSURE_BELOW,
        metavar="PROBABILITY",
        help=f"answers with a lower probability are marked unsure, in [0, 1] (default: {UNSURE_BELOW})",
    )
    parser.add_argument(
        "--output", type=table_file, metavar="FILE", help="also write the labels to a .csv or .json file"
    )
    parser.add_argument(
        "--save_inputs",
        type=Path,
        metavar="FOLDER",
        help="write there, for each picture, a PNG of it beside the 28×28 pixels that the network saw",
    )
    return parser


def fraction(text: str) -> float:
    """Parse a number in [0, 1]."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number in [0, 1], got {text!r}")


def table_file(text: str) -> Path:
    """Parse the name of a table to write."""
    if Path(text).suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"must end in .csv or .json, got {text!r}")
    return Path(text)


def run(options: argparse.Namespace) -> int:
    """Label the pictures that the options name; return the exit code."""
    from mnist_lightning.data.picture_files import find_pictures

    _check_places(options.output, options.save_inputs)
    paths, faults = find_pictures(options.pictures)
    for fault in faults:
        _tell(fault)
    labelled = _label(paths, options) if paths else []
    failed = len(faults) + len(paths) - len(labelled)
    unsure = sum(prediction.unsure for _, prediction in labelled)
    print(f"{len(labelled)} labelled, {unsure} of them unsure; {failed} failed")
    if options.output:
        write_labels(options.output, labelled)
        print(f"labels: {printable(str(options.output))}")
    if options.save_inputs:
        print(f"what the network saw: {printable(str(options.save_inputs))}")
    return NOTHING_LABELLED if not labelled else SOME_FAILED if failed else 0


def _check_places(output: Path | None, save_inputs: Path | None) -> None:
    """Fail before the work where its results could not be written."""
    if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
        raise StorageError(f"cannot write {printable(str(output))}: not in a folder that can be written")
    if save_inputs:
        try:
            save_inputs.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=save_inputs):
                pass
        except OSError as error:
            raise StorageError(f"cannot write into {printable(str(save_inputs))}: {error.strerror}") from error


def _label(paths: list[Path], options: argparse.Namespace) -> list[tuple[Path, Prediction]]:
    """Label pictures a few at a time, and show each as soon as it is labelled."""
    from tqdm import tqdm

    from mnist_lightning.inference.predictor import Predictor

    predictor = Predictor.from_run(options.ckpt_path, options.default_root_dir, options.unsure_below)
    print(f"network: {printable(str(predictor.trained.path))}, epoch {predictor.trained.epoch}")
    screen = Screen(paths, predictor.trained.spec.class_names)
    print(screen.header)
    labelled: list[tuple[Path, Prediction]] = []
    sheet_names: set[str] = set()
    # `disable=None` means: unless stderr is a terminal.
    with tqdm(total=len(paths), unit="picture", delay=PROGRESS_AFTER_S, leave=False, disable=None) as progress:
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            prepared: list[tuple[Path, PreparedPicture]] = []
            for path in paths[start : start + PICTURES_AT_ONCE]:
                if seen := _prepare(path, options, sheet_names):
                    prepared.append((path, seen))
                progress.update()
            predictions = predictor.predict_prepared([seen for _, seen in prepared])
            for (path, _), prediction in zip(prepared, predictions, strict=True):
                progress.write(screen.line(path, prediction))
                labelled.append((path, prediction))
    return labelled


def _prepare(path: Path, options: argparse.Namespace, sheet_names: set[str]) -> "PreparedPicture | None":
    from mnist_lightning.data.pictures import prepare_file
    from mnist_lightning.inference.sheet import save_sheet

    try:
        picture, seen = prepare_file(path, options.ink)
    except PictureError as error:
        _tell(error)
        return None
    if options.save_inputs:
        save_sheet(options.save_inputs, path.name, sheet_names, picture, seen)
    return seen


def _tell(error: PictureError) -> None:
    from tqdm import tqdm

    tqdm.write(f"error: {error}", file=sys.stderr)
