"""The command `predict`: label images or the rows of a table, on the screen and in a file.

Heavy modules are imported when they are needed, so that `--help` is fast.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from mnist_lightning.atomic_write import check_output_file, check_writable
from mnist_lightning.console import CommandParser, print_stderr, printable
from mnist_lightning.errors import ConfigError, ImageError
from mnist_lightning.inference.predict.output import ImageTable, Labelled, percent, write_predictions

SHOWN_ROWS = 20
SOME_FAILED, NOTHING_LABELLED = 1, 4  # exit codes
DESCRIPTION = """\
Find the digit in each image, normalise it as MNIST's makers did, and label it. Dark and light digits are distinguished
automatically. The exit code is 1 if some images could not be labelled, and 4 if none could.
A network that was trained on folders of images labels the whole image. A network that was trained on a table labels the
rows of a .csv file, either all or none."""


def main(args: list[str]) -> int:
    """Run the command with the arguments after `predict`; return its exit code."""
    options = _parser().parse_args(args)
    if options.output:
        check_output_file(options.output)
    if options.save_inputs:
        check_writable(options.save_inputs)
    is_table = any(name.lower().endswith(".csv") for name in options.images)
    labelled, failed = _label_table(options) if is_table else _label_images(options)
    unsure = sum(prediction.unsure for _, prediction, _ in labelled)
    print(f"{len(labelled):,}{' rows' * is_table} labelled, {unsure:,} of them unsure; {failed} failed")
    if not labelled:
        if options.output and options.output.exists():
            print(f"{printable(str(options.output))} is unchanged")
        return NOTHING_LABELLED
    if options.output:
        write_predictions(options.output, labelled)
        print(f"labels: {printable(str(options.output))}")
    if options.save_inputs:
        print(f"what the network saw: {printable(str(options.save_inputs))}")
    return SOME_FAILED if failed else 0


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
        "images",
        nargs="+",
        metavar="IMAGE_OR_FOLDER",
        help="a PNG, JPEG, BMP, WebP, TIFF or GIF image, or a folder: all images in it and its subfolders, except "
        "hidden ones; with a network that was trained on a table, a .csv file",
    )
    parser.add_checkpoint_option()
    parser.add_argument(
        "--ink",
        choices=("auto", "dark", "light"),
        default="auto",
        help="whether digits are darker or lighter than the background (default: auto, which decides for each image)",
    )
    parser.add_argument(
        "--unsure_below",
        type=_probability,
        metavar="PROBABILITY",
        help="mark predictions of a lower probability as unsure, in [0, 1] (default: the threshold in the checkpoint, "
        "fitted to the validation data)",
    )
    parser.add_argument("--output", type=_csv_or_json, metavar="FILE", help="write the labels to a .csv or .json file")
    parser.add_argument(
        "--save_inputs",
        type=Path,
        metavar="FOLDER",
        help="save each image there, beside the pixels that the network saw of it, as a PNG",
    )
    return parser


def _probability(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number in [0, 1], got {text!r}")


def _csv_or_json(text: str) -> Path:
    if Path(text).suffix.lower() not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"must end in .csv or .json, got {text!r}")
    return Path(text)


def _label_table(options: argparse.Namespace) -> tuple[list[Labelled], int]:
    if len(options.images) > 1:
        raise ConfigError("predict takes one .csv file at a time, and no images with it")
    if options.ink != "auto" or options.save_inputs:
        raise ConfigError("--ink and --save_inputs are for images, not for a .csv file")
    from mnist_lightning.data.table.encoder import TableSchema
    from mnist_lightning.inference.network import load_network
    from mnist_lightning.inference.predict.table import label_rows

    trained = load_network(TableSchema, options.ckpt_path)
    unsure_below = trained.calibration.unsure_below if options.unsure_below is None else options.unsure_below
    _print_network(trained.path, trained.epoch, unsure_below)
    labelled = label_rows(trained, Path(options.images[0]), unsure_below)
    for _, prediction, row in labelled[:SHOWN_ROWS]:
        unsure = "  unsure" if prediction.unsure else ""
        print(f"row {row}: {printable(prediction.label)} {percent(prediction.probability)}{unsure}")
    if len(labelled) > SHOWN_ROWS:
        print("…" if options.output else "… (--output labels.csv writes them all)")
    return labelled, 0


def _label_images(options: argparse.Namespace) -> tuple[list[Labelled], int]:
    """Label images and print each result at once; return them and the number of failures."""
    from mnist_lightning.images.reader import find_image_files

    paths, errors = find_image_files(options.images)
    for error in errors:
        print_stderr(f"error: {error}")
    if not paths:
        return [], len(errors)
    from mnist_lightning.inference.predict.contact_sheet import draw_contact_sheet, save_contact_sheet
    from mnist_lightning.inference.predictor import Predictor

    predictor = Predictor.from_run(options.ckpt_path, unsure_below=options.unsure_below)
    trained = predictor.trained
    _print_network(trained.path, trained.epoch, predictor.unsure_below)
    if trained.preprocessing_warning:
        print(trained.preprocessing_warning)
    if options.ink != "auto" and trained.schema.origin:
        raise ConfigError("--ink is for images of digits; this network was trained on folders of whole images")
    table = ImageTable(paths, trained.schema.class_names)
    print(table.header, flush=True)
    labelled: list[Labelled] = []
    sheet_names: set[str] = set()
    for path in paths:
        try:
            image, network_input = predictor.preprocess(path, options.ink)
        except ImageError as error:
            print_stderr(f"error: {error}")
            continue
        if options.save_inputs:
            save_contact_sheet(options.save_inputs, path.name, sheet_names, draw_contact_sheet(image, network_input))
        (prediction,) = predictor.predict_preprocessed([network_input])
        print(table.line(path, prediction), flush=True)
        labelled.append(Labelled(path, prediction))
    return labelled, len(errors) + len(paths) - len(labelled)


def _print_network(path: Path, epoch: int, unsure_below: float) -> None:
    print(f"network: {printable(str(path))}, epoch {epoch}; unsure below {unsure_below:.2f}")
