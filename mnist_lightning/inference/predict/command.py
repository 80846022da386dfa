"""`predict`: label a person's pictures, on the screen and into a file.

Nothing heavy is imported before it is needed: `--help` answers at once.
"""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.console import CommandParser, printable
from mnist_lightning.errors import ConfigError, ImageError, StorageError
from mnist_lightning.inference.predict.output import Screen, write_labels

if TYPE_CHECKING:
    from mnist_lightning.inference.digits.preprocess import NetworkInput
    from mnist_lightning.inference.prediction import Prediction
    from mnist_lightning.inference.predictor import Predictor

PICTURES_AT_ONCE = 16  # between two looks of the user at the screen
PROGRESS_AFTER_S = 2.0
SOME_FAILED, NOTHING_LABELLED = 1, 4  # exit codes
DESCRIPTION = """\
Find the digit in each picture, prepare it as MNIST's makers did, and label it. Whether its ink is darker or lighter
than the paper is found out and shown. The exit code is 1 where some pictures could not be labelled, 4 where none.
A network that was trained on folders of pictures labels the whole picture, and one that was trained on a table the rows
of a .csv file, all or none."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code: 0 all labelled, 1 some pictures failed, 4 none was labelled.

    Args:
        args: The command line after `predict`.

    Raises:
        CheckpointError: If there is no trained network, it is damaged, or it takes something else.
        ConfigError: If options do not go together.
        DatasetError: If a table cannot be read, or does not fit the network.
        StorageError: If a result cannot be written.
    """
    options = _parser().parse_args(args)
    _check_places(options.output, options.save_inputs)
    if any(name.lower().endswith(".csv") for name in options.pictures):
        return _run_table(options)
    return _run(options)


def _parser() -> CommandParser:
    parser = CommandParser(
        "predict",
        DESCRIPTION,
        "predict digit.png",
        "predict photos scans/seven.tif --output labels.csv",
        "predict photos --save_inputs seen",
        "predict chalk.jpg --ink light --ckpt_path version_3/best",
        "predict rows.csv --output labels.csv",
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="a PNG, JPEG, BMP, WebP, TIFF or GIF picture, or a folder: all pictures in it and in the "
        "folders in it, except hidden ones; for a network that was trained on a table, a .csv file",
    )
    parser.add_argument(
        "--ckpt_path",
        default="best",
        metavar="CHECKPOINT",
        help="best or last of the newest run, version_3/best, or a file (default: best)",
    )
    parser.add_argument(
        "--ink",
        choices=("auto", "dark", "light"),
        default="auto",
        help="whether the ink is darker or lighter than the paper (default: auto, which finds out for each picture)",
    )
    parser.add_argument(
        "--unsure_below",
        type=_probability,
        metavar="PROBABILITY",
        help="mark answers of a lower probability as unsure, in [0, 1] (default: what was fitted on the validation "
        "images of the checkpoint's training)",
    )
    parser.add_argument("--output", type=_table, metavar="FILE", help="also write the labels to a .csv or .json file")
    parser.add_argument(
        "--save_inputs",
        type=Path,
        metavar="FOLDER",
        help="also write each picture there beside the pixels that the network saw of it, as a PNG",
    )
    return parser


def _probability(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number in [0, 1], got {text!r}")


def _table(text: str) -> Path:
    if Path(text).suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"must end in .csv or .json, got {text!r}")
    return Path(text)


def _run(options: argparse.Namespace) -> int:
    from mnist_lightning.images.reader import find_image_files

    paths, faults = find_image_files(options.pictures)
    for fault in faults:
        _tell(fault)
    labelled = _label(paths, options) if paths else []
    failed = len(faults) + len(paths) - len(labelled)
    unsure = sum(prediction.unsure for _, prediction in labelled)
    print(f"{len(labelled)} labelled, {unsure} of them unsure; {failed} failed")
    if not labelled:
        if options.output and options.output.exists():
            print(f"{printable(str(options.output))} is left as it was")
        return NOTHING_LABELLED
    if options.output:
        write_labels(options.output, labelled)
        print(f"labels: {printable(str(options.output))}")
    if options.save_inputs:
        print(f"what the network saw: {printable(str(options.save_inputs))}")
    return SOME_FAILED if failed else 0


def _run_table(options: argparse.Namespace) -> int:
    if len(options.pictures) > 1:
        raise ConfigError("predict takes one .csv file at a time, and no pictures beside it")
    if options.ink != "auto" or options.save_inputs:
        raise ConfigError("--ink and --save_inputs are for pictures, not for a .csv file")
    from mnist_lightning.inference.predict.table import predict_table

    return predict_table(Path(options.pictures[0]), options.ckpt_path, options.unsure_below, options.output)


def _check_places(output: Path | None, save_inputs: Path | None) -> None:
    """Fail before the work where its results could not be written."""
    if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
        raise StorageError(f"cannot write {printable(str(output))}: not in a folder that can be written")
    if save_inputs:
        check_writable(save_inputs)


def _label(paths: list[Path], options: argparse.Namespace) -> "list[tuple[Path, Prediction]]":
    """Label pictures a few at a time, and show each as soon as it is labelled."""
    from tqdm import tqdm

    from mnist_lightning.inference.predictor import Predictor

    predictor = Predictor.from_run(options.ckpt_path, unsure_below=options.unsure_below)
    print(
        f"network: {printable(str(predictor.trained.path))}, epoch {predictor.trained.epoch}; "
        f"unsure below {predictor.unsure_below:.2f}"
    )
    if note := predictor.trained.note:
        print(note)
    if options.ink != "auto" and predictor.trained.schema.origin:
        raise ConfigError("--ink is for pictures of digits; this network was trained on folders of whole pictures")
    screen = Screen(paths, predictor.trained.schema.class_names)
    print(screen.header)
    labelled: list[tuple[Path, Prediction]] = []
    sheet_names: set[str] = set()
    # `disable=None` means: unless stderr is a terminal.
    with tqdm(total=len(paths), unit="picture", delay=PROGRESS_AFTER_S, leave=False, disable=None) as progress:
        for start in range(0, len(paths), PICTURES_AT_ONCE):
            prepared: list[tuple[Path, NetworkInput]] = []
            for path in paths[start : start + PICTURES_AT_ONCE]:
                if seen := _prepare(predictor, path, options, sheet_names):
                    prepared.append((path, seen))
                progress.update()
            predictions = predictor.predict_preprocessed([seen for _, seen in prepared])
            for (path, _), prediction in zip(prepared, predictions, strict=True):
                progress.write(screen.line(path, prediction))
                labelled.append((path, prediction))
    return labelled


def _prepare(
    predictor: "Predictor", path: Path, options: argparse.Namespace, sheet_names: set[str]
) -> "NetworkInput | None":
    from mnist_lightning.inference.predict.contact_sheet import save_contact_sheet

    try:
        picture, seen = predictor.preprocess(path, options.ink)
    except ImageError as error:
        _tell(error)
        return None
    if options.save_inputs:
        save_contact_sheet(options.save_inputs, path.name, sheet_names, picture, seen)
    return seen


def _tell(error: ImageError) -> None:
    from tqdm import tqdm

    tqdm.write(f"error: {error}", file=sys.stderr)
