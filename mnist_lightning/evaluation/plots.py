"""Pictures of results, drawn by Pillow: confusion matrix, sheets of images, reliability diagram, errors, range test.

Pillow and not matplotlib, which takes half a second to import, ten times as long to draw, and would be imported by
every training. Blue and vermilion are Okabe and Ito's, told apart by all kinds of eyes, and nothing is said by colour
alone. Sheets of images are grey (mode L), all other pictures RGB.
"""

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mnist_lightning.evaluation.analysis import ClassScore, WorstImage
from mnist_lightning.evaluation.calibration import BINS, Bin

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

PAPER, INK, GREY, PALE = (255, 255, 255), (34, 34, 34), (150, 150, 150), (238, 238, 238)
BLUE, VERMILION = (0, 114, 178), (213, 94, 0)
PALE_BLUE, PALE_VERMILION = (222, 235, 247), (253, 224, 204)
MARGIN, TITLE_HEIGHT = 12, 44
TEXT_SIZE, SMALL_SIZE = 14, 10


def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Image.Image:
    """Draw images by label (rows) and answer (columns): right ones in blue, wrong ones in vermilion."""
    classes = len(class_names)
    names = printable(class_names)
    side = 40 if classes <= 12 else 14
    size = TEXT_SIZE if side > TEXT_SIZE else SMALL_SIZE
    name_width = max(round(font(size).getlength(name)) for name in names)
    left = MARGIN + name_width + 8
    top = TITLE_HEIGHT + (name_width + 8 if name_width > side else size + 8)
    image, draw = canvas(left + classes * side + MARGIN, top + classes * side + MARGIN)
    title(draw, "Rows: labels. Columns: answers.")
    worst = max(
        (n for row, counts in enumerate(confusion) for column, n in enumerate(counts) if row != column), default=0
    )
    for row, counts in enumerate(confusion):
        middle = top + row * side + side // 2
        draw.text((left - 8, middle), names[row], INK, font(size), "rm")
        column_name(image, (left + row * side + side // 2, top - 6), names[row], size, upright=name_width <= side)
        for column, count in enumerate(counts):
            right = row == column
            share = count / (sum(counts) if right else worst) if count else 0.0
            fill = mixed(PALE_BLUE, BLUE, share) if right else mixed(PALE_VERMILION, VERMILION, share)
            x, y = left + column * side, top + row * side
            draw.rectangle((x, y, x + side - 2, y + side - 2), fill if count else PALE)
            if count and side > TEXT_SIZE:
                number_size = TEXT_SIZE if count < 10_000 else SMALL_SIZE
                draw.text((x + side // 2, middle), str(count), PAPER if share > 0.6 else INK, font(number_size), "mm")
    return image


def image_sheet(images: Pixels, *, columns: int, zoom: int, captions: Sequence[tuple[str, str]] = ()) -> Image.Image:
    """Draw images, uint8 (N, H, W) or (N, H, W, 3), enlarged, in rows, over their captions of two lines."""
    count, height, width = images.shape[:3]
    mode, paper, ink = ("L", 255, INK[0]) if images.ndim == 3 else ("RGB", PAPER, INK)
    step_x, step_y = zoom * width + 6, zoom * height + 6 + (2 * TEXT_SIZE + 8 if captions else 0)
    rows = -(-count // columns)
    sheet = Image.new(mode, (MARGIN + columns * step_x, MARGIN + rows * step_y), paper)
    draw = ImageDraw.Draw(sheet)
    for place, image in enumerate(images):
        x, y = MARGIN + place % columns * step_x, MARGIN + place // columns * step_y
        sheet.paste(Image.fromarray(image).resize((zoom * width, zoom * height), Image.Resampling.NEAREST), (x, y))
        for line, text in enumerate(captions[place] if captions else ()):
            shown = shortened(text, step_x - 6)
            draw.text((x, y + zoom * height + 2 + line * (TEXT_SIZE + 2)), shown, ink, font(TEXT_SIZE))
    return sheet


def worst_images(images: Pixels, worst: Sequence[WorstImage]) -> Image.Image:
    """Draw the worst images, uint8 (N, H, W) or (N, H, W, 3), with what they are, what was answered and how surely."""
    labels = printable([image.label for image in worst])
    predictions = printable([image.prediction for image in worst])
    captions = [
        (f"{label}, read as {prediction}", f"{100 * image.probability:.1f} %, no. {image.index}")
        for label, prediction, image in zip(labels, predictions, worst, strict=True)
    ]
    widest = max((font(TEXT_SIZE).getlength(names) for names, _ in captions), default=0)
    width = 112 if widest <= 112 else 224  # of an image on the sheet, in pixels; long names need the room
    zoom = max(1, width // images.shape[2])
    return image_sheet(images, columns=896 // width, zoom=zoom, captions=captions)


def reliability_diagram(panels: Sequence[tuple[str, Sequence[Bin]]]) -> Image.Image:
    """Draw, in a panel for each title, the accuracy (bars) and probability (ticks) of bins, over their counts."""
    step = 27
    side = BINS * step
    left, top, gap = 48, TITLE_HEIGHT, 60
    image, draw = canvas(left + len(panels) * (side + gap) - gap + MARGIN, top + side + 62)
    for panel, (name, bins) in enumerate(panels):
        x, bottom = left + panel * (side + gap), top + side
        title(draw, name, x)
        for tenths in range(0, 11, 2):
            y = bottom - side * tenths // 10
            draw.line((x, y, x + side, y), PALE)
            draw.text((x - 6, y), f"{tenths / 10:g}", INK, font(TEXT_SIZE), "rm")
            draw.text((x + side * tenths // 10, bottom + 20), f"{tenths / 10:g}", INK, font(TEXT_SIZE), "mt")
        for place, part in enumerate(bins):
            if part.count:
                start = x + place * step
                draw.rectangle((start + 2, bottom - round(side * part.accuracy), start + step - 2, bottom), BLUE)
                y = bottom - round(side * part.confidence)
                draw.rectangle((start, y - 1, start + step, y + 1), VERMILION)
                draw.text((start + step // 2, bottom + 4), str(part.count), GREY, font(SMALL_SIZE), "mt")
        draw.line((x, bottom, x + side, top), GREY)
        legend(draw, x, bottom + 42, [(BLUE, "share that is right"), (VERMILION, "probability")])
    return image


def class_errors(classes: Sequence[ClassScore], noun: str = "images") -> Image.Image:
    """Draw, for each class, the share of its images (or rows) that was missed and of its answers that was wrong."""
    names = printable([score.name for score in classes])
    name_width = max(round(font(TEXT_SIZE).getlength(name)) for name in names)
    left, length, row_height = MARGIN + name_width + 8, 360, 40
    image, draw = canvas(left + length + 190, TITLE_HEIGHT + len(classes) * row_height + 30)
    title(draw, "Errors by class, in percent")
    kinds = ((BLUE, "recall"), (VERMILION, "precision"))
    shares = [(score.recall, score.precision) for score in classes]
    longest = max((1 - share for pair in shares for share in pair if share is not None), default=0.0) or 1.0
    for row, (name, pair) in enumerate(zip(names, shares, strict=True)):
        y = TITLE_HEIGHT + row * row_height
        draw.text((left - 8, y + row_height // 2 - 2), name, INK, font(TEXT_SIZE), "rm")
        for (colour, kind), share, bar in zip(kinds, pair, (y, y + 18), strict=True):
            if share is None:
                draw.text((left + 6, bar + 8), f"no {kind}", GREY, font(TEXT_SIZE), "lm")
                continue
            end = left + round(length * (1 - share) / longest)
            draw.rectangle((left, bar, end, bar + 15), colour)
            text = f"{100 * (1 - share):.2f}   ({kind} {100 * share:.2f})"
            draw.text((end + 6, bar + 8), text, INK, font(TEXT_SIZE), "lm")
    draw.line((left - 1, TITLE_HEIGHT - 2, left - 1, TITLE_HEIGHT + len(classes) * row_height - 6), GREY)
    bottom = TITLE_HEIGHT + len(classes) * row_height + 8
    legend(draw, left, bottom, [(BLUE, f"{noun} missed"), (VERMILION, "answers wrong")])
    return image


def range_test(lrs: Sequence[float], losses: Sequence[float], suggestion: float) -> Image.Image:
    """Draw the loss of each step over its learning rate, as far as 1.5 times the first, and the rate suggested."""
    left, top, width, height = 48, TITLE_HEIGHT, 540, 300
    image, draw = canvas(left + width + 2 * MARGIN, top + height + 46)
    title(draw, f"Loss over the learning rate; it fell fastest at {suggestion:g}")
    first, last = math.floor(math.log10(lrs[0])), math.ceil(math.log10(lrs[-1]))
    highest = 1.5 * losses[0]

    def place(lr: float, loss: float) -> tuple[int, int]:
        across = (math.log10(lr) - first) / (last - first)
        return left + round(width * across), top + round(height * (1 - min(loss / highest, 1)))

    for power in range(first, last + 1):
        x, y = place(10.0**power, 0)
        draw.line((x, top, x, y), PALE)
        draw.text((x, y + 6), f"{10.0**power:g}", INK, font(TEXT_SIZE), "mt")
    for fifth in range(6):
        x, y = place(lrs[0], highest * fifth / 5)
        draw.line((left, y, left + width, y), PALE)
        draw.text((left - 6, y), f"{highest * fifth / 5:.2f}", INK, font(TEXT_SIZE), "rm")
    x, y = place(suggestion, 0)
    draw.line((x, top, x, y), VERMILION, 2)
    draw.line([place(lr, loss) for lr, loss in zip(lrs, losses, strict=True)], BLUE, 2)
    legend(draw, left, top + height + 26, [(BLUE, "loss of a training batch"), (VERMILION, "suggestion")])
    return image


def as_png(picture: Image.Image) -> bytes:
    """Return the bytes of a PNG file, packed lightly: half the time for a tenth more bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return white paper, and what draws on it."""
    image = Image.new("RGB", (width, height), PAPER)
    return image, ImageDraw.Draw(image)


def title(draw: ImageDraw.ImageDraw, text: str, x: int = MARGIN) -> None:
    """Write a title."""
    draw.text((x, MARGIN), text, INK, font(TEXT_SIZE + 2))


def legend(draw: ImageDraw.ImageDraw, x: int, y: int, entries: Sequence[tuple[Colour, str]]) -> None:
    """Write what the colours mean, in a row."""
    for colour, text in entries:
        draw.rectangle((x, y + 2, x + 10, y + 12), colour)
        draw.text((x + 16, y + 7), text, INK, font(TEXT_SIZE), "lm")
        x += 16 + round(font(TEXT_SIZE).getlength(text)) + 20


def column_name(image: Image.Image, foot: tuple[int, int], name: str, size: int, *, upright: bool) -> None:
    """Write a name above a column, turned by a quarter where it is wider than the column."""
    if upright:
        ImageDraw.Draw(image).text(foot, name, INK, font(size), "mb")
        return
    strip = Image.new("L", (round(font(size).getlength(name)) + 2, size + 4))
    ImageDraw.Draw(strip).text((0, strip.height // 2), name, 255, font(size), "lm")
    strip = strip.rotate(90, expand=True)
    image.paste(INK, (foot[0] - strip.width // 2, foot[1] - strip.height), strip)


def mixed(start: Colour, end: Colour, share: float) -> Colour:
    """Return the colour a share in [0, 1] of the way from one to another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def printable(names: Sequence[str]) -> list[str]:
    """Return names as Pillow's own font can write them: a name of other letters than ASCII's as its place."""
    return [name if name.isascii() else f"#{place}" for place, name in enumerate(names)]


def shortened(text: str, width: int) -> str:
    """Return text cut to a width in pixels."""
    if font(TEXT_SIZE).getlength(text) <= width:
        return text
    while text and font(TEXT_SIZE).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow carries."""
    return ImageFont.load_default(size)
