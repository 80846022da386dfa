"""How well a trained network reads pictures: MNIST's digits as photos with each nuisance alone and with all together.

    python benchmarks/pictures.py [--n 1000] [--split test] [--ckpt_path best] [--output pictures.json] [--sheet x.png]
    python benchmarks/pictures.py --split val       # for the table that the default of `unsure_below` is read from

Accuracy is compared with that on the same digits as MNIST has them. A photo without a digit found counts as wrong.
Digits of another origin are those of scikit-learn (8×8, UCI "Optical Recognition of Handwritten Digits"), enlarged to
160×160, if it is installed.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photo import NUISANCES, Pixels, take_photo
from PIL import Image, ImageOps

from mnist_lightning import MNISTDataModule, Predictor
from mnist_lightning.data.pictures import SIDE, PreparedPicture, prepare, prepare_file
from mnist_lightning.errors import PictureError
from mnist_lightning.inference.prediction import Prediction
from mnist_lightning.training.environment import environment

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
Answer = Prediction | None  # None: no digit found


@dataclass(frozen=True)
class Result:
    """How one kind of picture was read.

    Args:
        name: The nuisance.
        n: Pictures.
        correct: Of these, labelled right.
        plain_correct: Of these digits, labelled right as MNIST has them; None where there is no such form.
        no_digit: Pictures in which no digit was found.
        wrong_ink: Pictures whose ink was taken for paper.
        prepare_ms: Milliseconds a picture to read and prepare it, mean.
    """

    name: str
    n: int
    correct: int
    plain_correct: int | None
    no_digit: int
    wrong_ink: int
    prepare_ms: float

    def line(self) -> str:
        """Return the result as a line of the table."""
        accuracy = self.correct / self.n
        error = 1.96 * math.sqrt(accuracy * (1 - accuracy) / self.n)
        points = "" if self.plain_correct is None else f"{100 * (self.correct - self.plain_correct) / self.n:+7.2f}"
        return (
            f"{self.name:14} {self.n:6} {accuracy:8.2%} ± {100 * error:4.2f} {points:>7} {self.no_digit:8}"
            f" {self.wrong_ink:9} {self.prepare_ms:7.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="digits, at most as many as the split has")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="where the digits come from")
    parser.add_argument("--seed", type=int, default=0, help="chooses the digits and draws the photos")
    parser.add_argument("--nuisances", nargs="+", choices=NUISANCES, default=NUISANCES, metavar="NUISANCE")
    parser.add_argument("--ckpt_path", default="best", help="as for predict")
    parser.add_argument("--default_root_dir", default=".", help="as for predict")
    parser.add_argument("--data_dir", default="data", help="as --data.data_dir of fit")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--sheet", type=Path, help="PNG to write: photos that were read wrongly, and what was seen")
    options = parser.parse_args()

    predictor = Predictor.from_run(options.ckpt_path, options.default_root_dir)
    images, labels = read_digits(options.split, options.data_dir)
    chosen = np.sort(
        np.random.default_rng(options.seed).choice(len(labels), min(options.n, len(labels)), replace=False)
    )
    images, labels = images[chosen], labels[chosen]
    plain_correct = count_correct(predictor.predict_pixels(images), labels)
    print(f"{predictor.trained.path}, {options.split} digits as MNIST has them: {plain_correct}/{len(labels)}")
    print(f"{'picture':14} {'n':>6} {'accuracy':>15} {'points':>7} {'no digit':>8} {'wrong ink':>9} {'ms':>7}")
    results, all_answers, all_labels = [], list[Answer](), list[int]()
    wrong: list[Image.Image] = []
    for nuisance in options.nuisances:
        seen, photos, prepare_ms = read_photos(images, nuisance, options.seed)
        answers = label(predictor, seen)
        ink = "light" if nuisance == "light ink" else "dark"
        results.append(
            Result(
                nuisance, len(labels), count_correct(answers, labels), plain_correct,
                no_digit=seen.count(None), wrong_ink=sum(one is not None and one.ink != ink for one in seen),
                prepare_ms=prepare_ms,
            )
        )  # fmt: skip
        print(results[-1].line(), flush=True)
        all_answers += answers
        all_labels += labels.tolist()
        wrong += [
            beside(photo, one)
            for photo, one, answer, label_ in zip(photos, seen, answers, labels, strict=True)
            if answer is None or answer.index != label_
        ]
    results += read_other_digits(predictor)
    unsure = threshold_table(all_answers, all_labels)
    if options.sheet and wrong:
        contact_sheet(wrong).save(options.sheet)
    if options.output:
        report = {
            "split": options.split,
            "results": [asdict(result) for result in results],
            "thresholds": unsure,
            "environment": environment(torch.device("cpu"), "32-true"),
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n")


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


def read_photos(images: Pixels, nuisance: str, seed: int) -> tuple[list[PreparedPicture | None], list[bytes], float]:
    """Return what is seen of a photo of each digit, the photos, and the milliseconds that reading one took."""
    seen: list[PreparedPicture | None] = []
    photos, reading_s = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photo"
        for index, image in enumerate(images):
            photos.append(take_photo(image, nuisance, np.random.default_rng([seed, index, NUISANCES.index(nuisance)])))
            file.write_bytes(photos[-1])
            start = time.perf_counter()
            try:
                seen.append(prepare_file(file)[1])
            except PictureError:
                seen.append(None)
            reading_s += time.perf_counter() - start
    return seen, photos, 1000 * reading_s / len(images)


def label(predictor: Predictor, seen: list[PreparedPicture | None]) -> list[Answer]:
    """Return the prediction for each picture, None where no digit was found."""
    predictions = iter(predictor.predict_prepared([one for one in seen if one]))
    return [next(predictions) if one else None for one in seen]


def count_correct(answers: list[Answer] | list[Prediction], labels: NDArray[np.int64]) -> int:
    """Return how many answers are right."""
    return sum(answer is not None and answer.index == label for answer, label in zip(answers, labels, strict=True))


def read_other_digits(predictor: Predictor) -> list[Result]:
    """Read scikit-learn's digits, light on black and dark on white; nothing where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        print("scikit-learn's digits: not installed")
        return []
    digits = load_digits()
    results = []
    for ink in ("light", "dark"):
        seen: list[PreparedPicture | None] = []
        start = time.perf_counter()
        for image in np.rint(digits.images * (255 / 16)).astype(np.uint8):
            picture = Image.fromarray(np.pad(image, 2)).resize((160, 160), Image.Resampling.BICUBIC)
            try:
                seen.append(prepare(picture if ink == "light" else picture.point([255 - v for v in range(256)])))
            except PictureError:
                seen.append(None)
        prepare_ms = 1000 * (time.perf_counter() - start) / len(seen)
        correct = count_correct(label(predictor, seen), digits.target)
        wrong_ink = sum(one is not None and one.ink != ink for one in seen)
        results.append(Result(f"8×8, {ink} ink", len(seen), correct, None, seen.count(None), wrong_ink, prepare_ms))
        print(results[-1].line(), flush=True)
    return results


def threshold_table(answers: list[Answer], labels: list[int]) -> list[dict[str, float]]:
    """Print for each threshold how many answers it lets pass as sure, how many of those are right, what it catches."""
    pairs = [(answer, answer.index == label) for answer, label in zip(answers, labels, strict=True) if answer]
    wrong = sum(not right for _, right in pairs)
    print("unsure below   sure   right of these   wrong ones caught")
    rows = []
    for threshold in THRESHOLDS:
        sure = [right for answer, right in pairs if answer.probability >= threshold]
        row = {
            "threshold": threshold,
            "sure": len(sure) / len(pairs),
            "right": sum(sure) / max(1, len(sure)),
            "caught": 1 - (len(sure) - sum(sure)) / max(1, wrong),
        }
        rows.append(row)
        print(f"{threshold:12}  {row['sure']:6.2%}  {row['right']:13.2%}  {row['caught']:17.1%}")
    return rows


def beside(photo: bytes, seen: PreparedPicture | None) -> Image.Image:
    """Return a photo beside what was seen of it."""
    tile = Image.new("L", (160 + 88, 124), 128)
    shown = ImageOps.exif_transpose(Image.open(BytesIO(photo))).convert("L")
    shown.thumbnail((160, 120))
    tile.paste(shown, (0, 0))
    if seen:
        tile.paste(Image.fromarray(seen.pixels).resize((3 * SIDE, 3 * SIDE), Image.Resampling.NEAREST), (162, 0))
    return tile


def contact_sheet(tiles: list[Image.Image], columns: int = 6) -> Image.Image:
    """Return up to 120 tiles of one size side by side."""
    tiles = tiles[:120]
    width, height = tiles[0].size
    sheet = Image.new("L", (columns * width, -(-len(tiles) // columns) * height), 128)
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return sheet


if __name__ == "__main__":
    main()
