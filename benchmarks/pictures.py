"""Accuracy of a trained network on synthetic photos of MNIST's digits, with each defect alone and with all of them.

    python -m benchmarks.pictures [--n 1000] [--ckpt_path best] [--output pictures.json] [--sheet errors.png]
    python -m benchmarks.pictures --split val       # to choose a threshold for unsure predictions on photos

The same digits without any preprocessing serve as the reference. A photo in which no digit is found counts as
misclassified. If scikit-learn is installed, its digits are included as digits from another source (8×8, UCI "Optical
Recognition of Handwritten Digits"), enlarged to 160×160.
"""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks import report
from benchmarks.synthetic_photos import DEFECTS, Pixels, draw_photo
from mnist_lightning import MNISTDataModule, Predictor
from mnist_lightning.errors import ImageError
from mnist_lightning.inference.digits.binarize import Ink
from mnist_lightning.inference.digits.preprocess import preprocess_file
from mnist_lightning.inference.predict.contact_sheet import draw_contact_sheet
from mnist_lightning.inference.prediction import Prediction

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
TILE, COLUMNS, MAX_TILES = (266, 112), 6, 120  # contact sheet: pixels of a tile, tiles per row and in total


@dataclass(frozen=True)
class Outcome:
    """The prediction for an image, and what it cost.

    Args:
        label: The digit in the image.
        ink: Whether the digit is darker or lighter than its background.
        ms: Milliseconds to read the file, locate the digit and preprocess it.
        tile: The image and the network's input, small; None if the prediction is correct.
        prediction: The prediction; None if no digit was found.
    """

    label: int
    ink: Ink
    ms: float
    tile: Image.Image | None
    prediction: Prediction | None

    @property
    def is_correct(self) -> bool:
        """Whether the prediction is the label."""
        return self.prediction is not None and self.prediction.index == self.label

    @property
    def is_wrong_ink(self) -> bool:
        """Whether background and foreground were exchanged."""
        return (
            self.prediction is not None and self.prediction.input is not None and self.prediction.input.ink != self.ink
        )


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--n", type=int, default=1000, help="number of digits, at most the size of the split")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="where the digits come from")
    parser.add_argument("--seed", type=int, default=0, help="selects the digits and draws the photos")
    parser.add_argument("--defects", nargs="+", choices=DEFECTS, default=DEFECTS, metavar="DEFECT")
    parser.add_argument("--ckpt_path", default="best", help="as for predict")
    parser.add_argument("--data_dir", default="data", help="as --data.data_dir of fit")
    parser.add_argument("--sheet", type=Path, help="PNG to write: misclassified photos and the network's input")
    options = parser.parse_args()

    predictor = Predictor.from_run(options.ckpt_path)
    images, labels = read_digits(options.split, options.data_dir)
    random = np.random.default_rng(options.seed)
    chosen = np.sort(random.choice(len(labels), min(options.n, len(labels)), replace=False))
    images, labels = images[chosen], labels[chosen]
    predictions = predictor.predict_pixels(images)
    plain = [prediction.index == label for prediction, label in zip(predictions, labels.tolist(), strict=True)]
    rows = [{"picture": "as MNIST has them", "n": len(plain), "correct": sum(plain)}]
    outcomes: list[Outcome] = []
    for defect in options.defects:
        photos = (
            draw_photo(image, defect, np.random.default_rng([options.seed, index, DEFECTS.index(defect)]))
            for index, image in enumerate(images)
        )
        of_defect = predict_all(predictor, photos, labels, "light" if defect == "light ink" else "dark")
        rows.append(row(defect, of_defect))
        outcomes += of_defect
    if digits := read_other_digits():
        light = [enlarged(image) for image in digits[0]]
        dark = map(ImageOps.invert, light)
        rows.append(row("8×8, light ink", predict_all(predictor, map(png, light), digits[1], "light")))
        rows.append(row("8×8, dark ink", predict_all(predictor, map(png, dark), digits[1], "dark")))
    print(f"{predictor.trained.path}, {options.split} digits")
    report.print_table(map(shown, rows))
    thresholds = [at_threshold(threshold, outcomes) for threshold in sorted({*THRESHOLDS, predictor.unsure_below})]
    print(f"predictions below {predictor.unsure_below:.2%} count as unsure")
    report.print_table({key: f"{value:.2%}" for key, value in line.items()} for line in thresholds)
    if options.sheet:
        contact_sheet([outcome.tile for outcome in outcomes if outcome.tile]).save(options.sheet)
    report.write(
        options.output,
        checkpoint=str(predictor.trained.path),
        split=options.split,
        pictures=rows,
        thresholds=thresholds,
    )


def read_digits(split: str, data_dir: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Return the images (N, 28, 28) and labels (N,) of the validation or the test digits."""
    data = MNISTDataModule(data_dir)
    data.prepare_data()
    data.setup("test" if split == "test" else "validate")
    samples = data.samples(split)
    return samples.inputs[samples.indices].numpy(), samples.labels[samples.indices].numpy()


def read_other_digits() -> tuple[Pixels, NDArray[np.int64]] | None:
    """Return scikit-learn's digits (N, 8, 8), light on black, and labels (N,); None if it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        print("skipping scikit-learn's digits: it is not installed")
        return None
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def enlarged(image: Pixels) -> Image.Image:
    """Return an image (8, 8) with a margin of 2 pixels, enlarged to 160×160."""
    return Image.fromarray(np.pad(image, 2)).resize((160, 160), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    """Return the content of a PNG file of an image."""
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def predict_all(predictor: Predictor, files: Iterable[bytes], labels: NDArray[np.int64], ink: Ink) -> list[Outcome]:
    """Predict image files one by one, as `predict` does."""
    return [predict_file(predictor, file, int(label), ink) for file, label in zip(files, labels, strict=True)]


def predict_file(predictor: Predictor, content: bytes, label: int, ink: Ink) -> Outcome:
    """Predict an image from the content of its file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        start = time.perf_counter()
        try:
            image, network_input = preprocess_file(file.name)
        except ImageError:
            return Outcome(label, ink, 1e3 * (time.perf_counter() - start), tile(Image.open(BytesIO(content))), None)
        ms = 1e3 * (time.perf_counter() - start)
    prediction = predictor.predict_preprocessed([network_input])[0]
    is_correct = prediction.index == label
    return Outcome(label, ink, ms, None if is_correct else tile(draw_contact_sheet(image, network_input)), prediction)


def row(kind: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the figures for one kind of image."""
    return {
        "picture": kind,
        "n": len(outcomes),
        "correct": sum(outcome.is_correct for outcome in outcomes),
        "no_digit_found": sum(outcome.prediction is None for outcome in outcomes),
        "wrong_ink": sum(outcome.is_wrong_ink for outcome in outcomes),
        "prepare_ms": float(np.median([outcome.ms for outcome in outcomes])),
    }


def shown(figures: dict[str, Any]) -> dict[str, Any]:
    """Format figures for the table, with the accuracy's 95 % interval (normal approximation)."""
    accuracy = figures["correct"] / figures["n"]
    error = 1.96 * math.sqrt(accuracy * (1 - accuracy) / figures["n"])
    ms = f"{figures['prepare_ms']:.1f}" if "prepare_ms" in figures else ""
    return {
        "image": figures["picture"],
        "n": figures["n"],
        "accuracy": f"{accuracy:.2%} ± {error:.2%}",
        "no digit found": figures.get("no_digit_found", ""),
        "wrong ink": figures.get("wrong_ink", ""),
        "ms": ms,
    }


def at_threshold(threshold: float, outcomes: list[Outcome]) -> dict[str, float]:
    """Return the fraction of sure predictions, their accuracy, and the fraction of errors that are unsure."""
    predicted = [outcome for outcome in outcomes if outcome.prediction]
    sure = [outcome for outcome in predicted if outcome.prediction and outcome.prediction.probability >= threshold]
    errors = sum(not outcome.is_correct for outcome in predicted)
    sure_errors = sum(not outcome.is_correct for outcome in sure)
    return {
        "threshold": threshold,
        "sure": len(sure) / len(predicted),
        "accuracy of the sure": 1 - sure_errors / max(1, len(sure)),
        "unsure errors": 1 - sure_errors / max(1, errors),
    }


def tile(image: Image.Image) -> Image.Image:
    """Return an image scaled down to a tile of the contact sheet."""
    small = image.convert("RGB")
    small.thumbnail(TILE)
    return small


def contact_sheet(tiles: list[Image.Image]) -> Image.Image:
    """Return the first tiles in a grid."""
    tiles = tiles[:MAX_TILES]
    width, height = TILE
    sheet = Image.new("RGB", (COLUMNS * width, max(1, -(-len(tiles) // COLUMNS)) * height))
    for index, image in enumerate(tiles):
        sheet.paste(image, (index % COLUMNS * width, index // COLUMNS * height))
    return sheet


if __name__ == "__main__":
    main()
