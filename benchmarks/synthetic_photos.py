"""Draw synthetic photos of MNIST's digits, each with one defect of real photos or with all of them."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFilter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

WIDTH, HEIGHT = 640, 480
BACKGROUND, FOREGROUND, FAINT, TABLE = 225, 45, 140, 60  # grey levels

# `light ink` is light on black, the others are dark on white. `all` combines the others, with one position and one pen.
DEFECTS = (
    "light ink",
    "dark ink",
    "off centre",
    "small",
    "thick pen",
    "thin pen",
    "faint ink",
    "ruled lines",
    "margin",
    "table's edge",
    "shadow",
    "blur",
    "noise",
    "JPEG",
    "EXIF",
    "all",
)

# How to store an image so that its EXIF orientation turns it upright.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def draw_photo(digit: Pixels, defect: str, random: np.random.Generator) -> bytes:
    """Return the content of a PNG or JPEG file that shows a digit.

    Args:
        digit: uint8 (28, 28), light on black.
        defect: One of `DEFECTS`.
        random: Draws positions, directions and strengths.
    """
    on = {defect}
    if defect == "all":
        on = set(DEFECTS) - {"light ink", "faint ink", "small", "thick pen", "thin pen"}
        on |= {str(random.choice(["small", "off centre"])), str(random.choice(["thick pen", "thin pen", "dark ink"]))}
    size = int(random.integers(6, 13)) * 28 if "off centre" in on else 336
    size = 112 if "small" in on else size
    coverage = _placed(_strokes(digit, size, on), size, on, random)
    if "light ink" in on:
        return _file(10 + 235 * coverage, on, random)
    sheet = np.full((HEIGHT, WIDTH), BACKGROUND, np.float32)
    if "ruled lines" in on:
        lines = _lines(int(random.integers(50, 90)), 3, random, upright=False)
        sheet += (random.uniform(110, 170) - sheet) * lines
    if "margin" in on:
        sheet += (random.uniform(80, 120) - sheet) * _lines(600, 4, random, upright=True)
    sheet += ((FAINT if "faint ink" in on else FOREGROUND) - sheet) * coverage
    if "table's edge" in on:
        sheet = TABLE + (sheet - TABLE) * _sheet_coverage(random)
    if "shadow" in on:
        sheet *= _illumination(random)
    if "blur" in on:
        blurred = Image.fromarray(_levels(sheet)).filter(ImageFilter.GaussianBlur(size / 28 / 4))
        sheet = np.asarray(blurred, np.float32)
    if "noise" in on:
        sheet = sheet + random.normal(0, 12, sheet.shape).astype(np.float32)
    return _file(sheet, on, random)


def _strokes(digit: Pixels, size: int, on: set[str]) -> Image.Image:
    pixel = size / 28
    if "thin pen" in on:
        # The centre lines of the strokes, redrawn 1.25 pixels of 28 wide.
        middle = skeleton(np.asarray(_sharp(digit, 112)) >= 128)
        drawn = Image.fromarray(np.where(middle, np.uint8(255), np.uint8(0))).filter(ImageFilter.MaxFilter(5))
        return _sharp(np.asarray(drawn.filter(ImageFilter.GaussianBlur(1))), size)
    strokes = _sharp(digit, size)
    if "thick pen" in on:
        return strokes.filter(ImageFilter.MaxFilter(2 * round(pixel / 2) + 1))  # thicker by a pixel of 28
    return strokes


def _sharp(image: Pixels, size: int) -> Image.Image:
    """Return an enlarged image whose strokes have sharp edges."""
    enlarged = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return enlarged.point([min(255, max(0, (value - 128) * 4 + 128)) for value in range(256)])


def skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the centre lines of strokes; Zhang, Suen: A fast parallel algorithm for thinning, CACM 27 (1984) 236."""
    pixels = np.pad(mask, 1).astype(np.int8)
    around = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))  # P2 to P9: north, then clockwise
    while True:
        before = pixels.sum()
        for first, second in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            p = [np.roll(pixels, shift, (0, 1)) for shift in around]
            count = sum(p)
            steps = sum((one == 0) & (next_ == 1) for one, next_ in zip(p, [*p[1:], p[0]], strict=True))
            free = np.prod([p[i] for i in first], axis=0) + np.prod([p[i] for i in second], axis=0) == 0
            pixels[(pixels == 1) & (count >= 2) & (count <= 6) & (steps == 1) & free] = 0
        if pixels.sum() == before:
            return pixels[1:-1, 1:-1] > 0


def _placed(strokes: Image.Image, size: int, on: set[str], random: np.random.Generator) -> Floats:
    """Return the fraction of each pixel that strokes cover, in [0, 1]."""
    left, top = (WIDTH - size) // 2, (HEIGHT - size) // 2
    if on & {"off centre", "small"}:
        left, top = int(random.integers(20, WIDTH - size - 20)), int(random.integers(20, HEIGHT - size - 20))
    sheet = Image.new("L", (WIDTH, HEIGHT))
    sheet.paste(strokes, (left, top))
    return _fractions(sheet)


def _lines(gap: int, width: int, random: np.random.Generator, *, upright: bool) -> Floats:
    """Return printed lines, horizontal or vertical within two degrees; a wide gap gives a single line at the left."""
    start, slope = int(random.integers(40, 120)), random.uniform(-0.03, 0.03)
    sheet = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(sheet)
    for place in range(start - gap * 10, WIDTH + gap, gap):
        ends = (
            ((place, 0), (place + slope * HEIGHT, HEIGHT)) if upright else ((0, place), (WIDTH, place + slope * WIDTH))
        )
        draw.line(ends, fill=255, width=width)
    return _fractions(sheet)


def _sheet_coverage(random: np.random.Generator) -> Floats:
    """Return 1 on the sheet and 0 on the table, which is visible along some edges at a slight angle."""
    left, top, right, bottom = random.integers(-10, 20, 4)
    tilt = random.integers(-8, 9, 2)
    corners = (
        (left, top),
        (WIDTH - right, top + tilt[0]),
        (WIDTH - right + tilt[1], HEIGHT - bottom),
        (left + tilt[1], HEIGHT - bottom - tilt[0]),
    )
    sheet = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(sheet).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    return _fractions(sheet.filter(ImageFilter.GaussianBlur(1)))


def _fractions(image: Image.Image) -> Floats:
    """Return a grey image scaled to [0, 1]."""
    return np.asarray(image, np.float32) / np.float32(255)


def _illumination(random: np.random.Generator) -> Floats:
    """Return relative brightness: a shadow with a soft edge near the middle, and a fall-off from top to bottom."""
    down, across = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    angle, softness = random.uniform(0, 2 * np.pi), random.uniform(2.5, 15)
    x, y = across - WIDTH / 2 - random.uniform(-100, 100), down - HEIGHT / 2 - random.uniform(-80, 80)
    depth = (x * np.cos(angle) + y * np.sin(angle)) / softness
    shadow = 1 - random.uniform(0.3, 0.6) / (1 + np.exp(-depth.clip(-50, 50)))
    light: Floats = (shadow * (1 - 0.15 * down / HEIGHT)).astype(np.float32)
    return light


def _levels(sheet: Floats) -> Pixels:
    levels: Pixels = np.rint(sheet).clip(0, 255).astype(np.uint8)
    return levels


def _file(sheet: Floats, on: set[str], random: np.random.Generator) -> bytes:
    image = Image.fromarray(_levels(sheet)).convert("RGB")
    exif = Image.Exif()
    if "EXIF" in on:
        exif[ExifTags.Base.Orientation] = orientation = int(random.integers(2, 9))
        image = image.transpose(STORED[orientation])
    file = BytesIO()
    if "JPEG" in on:
        image.save(file, "JPEG", quality=30, exif=exif)
    else:
        image.save(file, "PNG", compress_level=1, exif=exif)
    return file.getvalue()
