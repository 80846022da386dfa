"""How well a trained network reads pictures: MNIST's digits as photos with each nuisance alone and with all together.

    python -m benchmarks.pictures [--n 1000] [--ckpt_path best] [--output pictures.json] [--sheet misread.png]
    python -m benchmarks.pictures --split val       # to choose a threshold for unsure answers to photos

Accuracy is compared with that on the same digits as MNIST has them. A photo without a digit found counts as wrong.
Digits of another origin are those of scikit-learn (8×8, UCI "Optical Recognition of Handwritten Digits"), enlarged to
160×160, if it is installed.
"""

import argparse
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
from benchmarks.photo import NUISANCES, Pixels, take_photo
from mnist_lightning import MNISTDataModule, Predictor
from mnist_lightning.errors import ImageError
from mnist_lightning.inference.digits.binarize import Ink
from mnist_lightning.inference.digits.preprocess import preprocess_file
from mnist_lightning.inference.predict.contact_sheet import draw_contact_sheet
from mnist_lightning.inference.prediction import Prediction

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
TILE, COLUMNS, MAX_TILES = (266, 112), 6, 120  # of the sheet: pixels of a tile, tiles beside each other and in all


@dataclass(frozen=True)
class Reading:
    """What was made of a picture.

    Args:
        label: What it shows.
        ink: Whether its ink is darker or lighter than its paper.
        ms: Milliseconds to read the file, find the digit and prepare it.
        tile: The picture and what was seen of it, small; None where it was read rightly.
        prediction: What the network said; None where no digit was found.
    """

    label: int
    ink: Ink
    ms: float
    tile: Image.Image | None
    prediction: Prediction | None

    @property
    def is_right(self) -> bool:
        """Whether the label is the network's too."""
        return self.prediction is not None and self.prediction.index == self.label

    @property
    def is_wrong_ink(self) -> bool:
        """Whether paper was taken for ink."""
        return (
            self.prediction is not None and self.prediction.input is not None and self.prediction.input.ink != self.ink
        )


def main() -> None:
    """Measure, print and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="digits, at most as many as the split has")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="where the digits come from")
    parser.add_argument("--seed", type=int, default=0, help="chooses the digits and draws the photos")
    parser.add_argument("--nuisances", nargs="+", choices=NUISANCES, default=NUISANCES, metavar="NUISANCE")
    parser.add_argument("--ckpt_path", default="best", help="as for predict")
    parser.add_argument("--data_dir", default="data", help="as --data.data_dir of fit")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--sheet", type=Path, help="PNG to write: photos that were read wrongly, and what was seen")
    options = parser.parse_args()

    predictor = Predictor.from_run(options.ckpt_path)
    images, labels = read_digits(options.split, options.data_dir)
    random = np.random.default_rng(options.seed)
    chosen = np.sort(random.choice(len(labels), min(options.n, len(labels)), replace=False))
    images, labels = images[chosen], labels[chosen]
    answers = predictor.predict_pixels(images)
    plain = [answer.index == label for answer, label in zip(answers, labels.tolist(), strict=True)]
    rows = [{"picture": "as MNIST has them", "n": len(plain), "correct": sum(plain)}]
    readings: list[Reading] = []
    for nuisance in options.nuisances:
        photos = (
            take_photo(image, nuisance, np.random.default_rng([options.seed, index, NUISANCES.index(nuisance)]))
            for index, image in enumerate(images)
        )
        part = read(predictor, photos, labels, "light" if nuisance == "light ink" else "dark")
        rows.append(row(nuisance, part))
        readings += part
    if digits := read_other_digits():
        light = [enlarged(image) for image in digits[0]]
        dark = map(ImageOps.invert, light)
        rows.append(row("8×8, light ink", read(predictor, map(png, light), digits[1], "light")))
        rows.append(row("8×8, dark ink", read(predictor, map(png, dark), digits[1], "dark")))
    print(f"{predictor.trained.path}, {options.split} digits")
    report.print_table(map(shown, rows))
    thresholds = [at_threshold(threshold, readings) for threshold in sorted({*THRESHOLDS, predictor.unsure_below})]
    print(f"answers below {predictor.unsure_below:.2%} count as unsure")
    report.print_table({key: f"{value:.2%}" for key, value in line.items()} for line in thresholds)
    if options.sheet:
        contact_sheet([reading.tile for reading in readings if reading.tile]).save(options.sheet)
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
    if split == "test":
        images, labels = data.test_file
    else:
        images, labels = (part[data.val_indices] for part in data.train_file)
    return images.numpy(), labels.numpy()


def read_other_digits() -> tuple[Pixels, NDArray[np.int64]] | None:
    """Return scikit-learn's digits (N, 8, 8), light on black, and their labels (N,); None where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        print("scikit-learn's digits are left out: it is not installed")
        return None
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def enlarged(image: Pixels) -> Image.Image:
    """Return an image (8, 8) with a margin of 2 pixels at 160×160."""
    return Image.fromarray(np.pad(image, 2)).resize((160, 160), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    """Return the content of a PNG file of an image."""
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def read(predictor: Predictor, files: Iterable[bytes], labels: NDArray[np.int64], ink: Ink) -> list[Reading]:
    """Read the pictures in files one by one, as a person's would be."""
    return [read_one(predictor, file, int(label), ink) for file, label in zip(files, labels, strict=True)]


def read_one(predictor: Predictor, content: bytes, label: int, ink: Ink) -> Reading:
    """Read a picture from the content of its file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        start = time.perf_counter()
        try:
            picture, seen = preprocess_file(file.name)
        except ImageError:
            return Reading(label, ink, 1e3 * (time.perf_counter() - start), tile(Image.open(BytesIO(content))), None)
        ms = 1e3 * (time.perf_counter() - start)
    prediction = predictor.predict_preprocessed([seen])[0]
    is_right = prediction.index == label
    return Reading(label, ink, ms, None if is_right else tile(draw_contact_sheet(picture, seen)), prediction)


def row(picture: str, readings: list[Reading]) -> dict[str, Any]:
    """Return the figures of one kind of picture."""
    return {
        "picture": picture,
        "n": len(readings),
        "correct": sum(reading.is_right for reading in readings),
        "no_digit_found": sum(reading.prediction is None for reading in readings),
        "wrong_ink": sum(reading.is_wrong_ink for reading in readings),
        "prepare_ms": float(np.median([reading.ms for reading in readings])),
    }


def shown(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as the table shows them: with accuracy and its 95 % interval (normal approximation)."""
    accuracy = figures["correct"] / figures["n"]
    error = 1.96 * math.sqrt(accuracy * (1 - accuracy) / figures["n"])
    ms = f"{figures['prepare_ms']:.1f}" if "prepare_ms" in figures else ""
    return {
        "picture": figures["picture"],
        "n": figures["n"],
        "accuracy": f"{accuracy:.2%} ± {error:.2%}",
        "no digit found": figures.get("no_digit_found", ""),
        "wrong ink": figures.get("wrong_ink", ""),
        "ms": ms,
    }


def at_threshold(threshold: float, readings: list[Reading]) -> dict[str, float]:
    """Return the share of answers that count as sure, of these that are right, and of wrong ones that are unsure."""
    answered = [reading for reading in readings if reading.prediction]
    sure = [reading for reading in answered if reading.prediction and reading.prediction.probability >= threshold]
    wrong = sum(not reading.is_right for reading in answered)
    sure_and_wrong = sum(not reading.is_right for reading in sure)
    return {
        "threshold": threshold,
        "sure": len(sure) / len(answered),
        "right of the sure": 1 - sure_and_wrong / max(1, len(sure)),
        "unsure of the wrong": 1 - sure_and_wrong / max(1, wrong),
    }


def tile(picture: Image.Image) -> Image.Image:
    """Return a picture as small as a tile of the sheet."""
    small = picture.convert("RGB")
    small.thumbnail(TILE)
    return small


def contact_sheet(tiles: list[Image.Image]) -> Image.Image:
    """Return the first tiles side by side."""
    tiles = tiles[:MAX_TILES]
    width, height = TILE
    sheet = Image.new("RGB", (COLUMNS * width, max(1, -(-len(tiles) // COLUMNS)) * height))
    for index, picture in enumerate(tiles):
        sheet.paste(picture, (index % COLUMNS * width, index // COLUMNS * height))
    return sheet


if __name__ == "__main__":
    main()
