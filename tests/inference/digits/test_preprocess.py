import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mnist_lightning.errors import ImageError
from mnist_lightning.inference.digits.locate import find_digit
from mnist_lightning.inference.digits.preprocess import SIDE, InkChoice, preprocess, preprocess_drawing, preprocess_file
from tests.inference.digits.drawn import encoded, mnist_images, on_paper

Pixels = NDArray[np.uint8]

DIGITS = mnist_images(40)
RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH = 480, 640


def centre_of_mass(pixels: Pixels) -> list[float]:
    place = np.indices(pixels.shape)
    return [float((axis * pixels).sum() / pixels.sum()) for axis in place.astype(np.float64)]


def best_correlation(one: Pixels, other: Pixels) -> float:
    """Return the correlation of two images at their best alignment: a centre of mass may round to the next pixel."""
    moved = [np.roll(one, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return max(float(np.corrcoef(image.ravel(), other.ravel())[0, 1]) for image in moved)


def extent(pixels: Pixels) -> tuple[int, int]:
    rows, columns = np.nonzero(pixels)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("invert", [False, True], ids=["light ink", "dark ink"])
@pytest.mark.parametrize("margin", [0, 7], ids=["28×28", "padded"])
def test_mnist_images_are_left_unchanged(invert: bool, margin: int) -> None:
    for image in DIGITS:
        page = np.pad(image, margin)
        result = preprocess(255 - page if invert else page)
        np.testing.assert_array_equal(result.pixels, image)
        assert result.ink == ("dark" if invert else "light")


@pytest.mark.slow
def test_all_but_one_of_the_70000_mnist_images_are_left_unchanged() -> None:
    # Image 19,841 of the training file is the only one with its centre of mass a whole pixel off: row 13.48.
    images = np.concatenate([mnist_images(60_000), mnist_images(10_000, file=2)])
    changed = [index for index, image in enumerate(images) if not np.array_equal(preprocess(image).pixels, image)]
    assert changed == [19_841]


@pytest.mark.parametrize("foot", [False, True])
@pytest.mark.parametrize("length", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("slant", [-6, 0, 10])
@pytest.mark.parametrize("width", [6, 12])
def test_a_1_that_fills_the_image_is_not_taken_for_a_ruled_line(
    length: float, slant: int, width: int, foot: bool
) -> None:
    page = Image.new("L", (200, 200), 255)
    top, bottom = 100 - 100 * length, 100 + 100 * length
    ImageDraw.Draw(page).line([(100 + slant / 2, top), (100 - slant / 2, bottom)], fill=0, width=width)
    if foot:
        ImageDraw.Draw(page).line([(60, bottom), (140, bottom)], fill=0, width=width)
    result = preprocess(page)
    assert result.ink == "dark"
    assert extent(result.pixels)[0] in (19, 20, 21)  # the field's length, and a rim of grey
    assert (extent(result.pixels)[1] > 7) == foot


@pytest.mark.parametrize("grey", [1, 7])
def test_a_drawing_that_is_too_faint_shows_no_digit(grey: int) -> None:
    with pytest.raises(ImageError, match="no digit found"):
        preprocess_drawing(np.full((280, 280), grey, np.uint8))


def test_an_enlarged_digit_is_restored_approximately() -> None:
    for image in DIGITS[:10]:
        enlarged = Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC)
        # Not exactly: enlarging blurs edges, which are then sharpened again.
        assert best_correlation(preprocess(enlarged).pixels, image) > 0.9


def test_the_result_has_the_form_of_mnist_images() -> None:
    for image in DIGITS[:8]:
        for stretch in ((168, 168), (168, 300), (300, 168)):
            enlarged = Image.fromarray(on_paper(image)).resize(stretch)
            pixels = preprocess(np.asarray(enlarged)).pixels
            assert pixels.shape == (SIDE, SIDE)
            assert pixels.dtype == np.uint8
            assert pixels.max() == 255
            assert max(extent(pixels)) == 20
            assert all(13.5 <= centre < 14.5 for centre in centre_of_mass(pixels))


def test_the_aspect_ratio_is_kept() -> None:
    bar = np.full((300, 300), 255, np.uint8)
    bar[50:250, 100:130] = 0
    assert extent(preprocess(bar).pixels) == (20, 3)


# Encodings of one image that keep every grey level; background and ink are white and black, which all can encode.
GREY = Image.fromarray(on_paper(DIGITS[0]))
WIDE = np.asarray(GREY).astype(np.uint16)


def transparent(mode: str) -> Image.Image:
    ink = Image.new("L", GREY.size, 0)
    opacity = GREY.point([255 - value for value in range(256)])
    return Image.merge(mode, [ink] * (len(mode) - 1) + [opacity])


def cmyk() -> Image.Image:
    nothing = Image.new("L", GREY.size, 0)
    return Image.merge("CMYK", [nothing] * 3 + [GREY.point([255 - value for value in range(256)])])


def with_transparent_colour(mode: str) -> Image.Image:
    image = GREY.convert(mode)
    image.info["transparency"] = 255 if mode == "L" else (255, 255, 255)
    return image


SAME: dict[str, Callable[[], Image.Image]] = {
    "RGB": lambda: GREY.convert("RGB"),
    "RGBA": lambda: GREY.convert("RGBA"),
    "LA": lambda: GREY.convert("LA"),
    "palette": lambda: GREY.convert("P"),
    "adaptive palette": lambda: GREY.convert("RGB").quantize(256),
    "CMYK": cmyk,
    "YCbCr": lambda: GREY.convert("YCbCr"),
    "HSV": lambda: GREY.convert("RGB").convert("HSV"),
    "black ink, transparent background, RGBA": lambda: transparent("RGBA"),
    "black ink, transparent background, LA": lambda: transparent("LA"),
    "transparent colour in PNG, L": lambda: encoded(with_transparent_colour("L"), "PNG"),
    "transparent colour in PNG, RGB": lambda: encoded(with_transparent_colour("RGB"), "PNG"),
    "16 bit": lambda: Image.fromarray(WIDE * 257),
    "16 bit, low byte 0": lambda: Image.fromarray(WIDE << 8),
    "16 bit in PNG": lambda: encoded(Image.fromarray(WIDE * 257), "PNG"),
    "16 bit in TIFF": lambda: encoded(Image.fromarray(WIDE * 257), "TIFF"),
    "32-bit integers of 8 bits": lambda: Image.fromarray(WIDE.astype(np.int32)),
    "32-bit integers of 16 bits": lambda: Image.fromarray(WIDE.astype(np.int32) * 257),
    "floats of 8 bits": lambda: Image.fromarray(WIDE.astype(np.float32)),
    "floats in [0, 1]": lambda: Image.fromarray((WIDE / 255).astype(np.float32)),
    "floats in TIFF": lambda: encoded(Image.fromarray((WIDE / 255).astype(np.float32)), "TIFF"),
    "PNG": lambda: encoded(GREY, "PNG"),
    "BMP": lambda: encoded(GREY, "BMP"),
    "WebP": lambda: encoded(GREY, "WEBP", lossless=True),
    "TIFF": lambda: encoded(GREY, "TIFF"),
    "TIFF, LZW": lambda: encoded(GREY, "TIFF", compression="tiff_lzw"),
    "TIFF, CMYK": lambda: encoded(cmyk(), "TIFF"),
    "GIF": lambda: encoded(GREY, "GIF"),
    "GIF, animated": lambda: encoded(
        GREY.convert("P"), "GIF", save_all=True, append_images=[Image.new("P", GREY.size)]
    ),
    "WebP, animated": lambda: encoded(
        GREY.convert("RGB"), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", GREY.size)]
    ),
    "light on dark": lambda: GREY.point([255 - value for value in range(256)]),
    "wider margins": lambda: Image.fromarray(on_paper(DIGITS[0], margin=90)),
}


@pytest.mark.parametrize("name", SAME)
def test_other_encodings_of_an_image_give_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(preprocess(SAME[name]()).pixels, preprocess(GREY).pixels)


@pytest.mark.parametrize("name", ["off centre to the left", "off centre to the bottom"])
def test_the_position_of_the_digit_does_not_matter(name: str) -> None:
    paper = np.full((400, 400), 255, np.uint8)
    digit = on_paper(DIGITS[0], margin=20)
    top, left = (100, 3) if name.endswith("left") else (185, 100)
    paper[top : top + len(digit), left : left + len(digit)] = digit
    np.testing.assert_array_equal(preprocess(paper).pixels, preprocess(GREY).pixels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_images_of_a_few_bits_a_pixel_are_read(bits: int) -> None:
    levels = (1 << bits) - 1
    coarse = np.rint(np.asarray(GREY) / 255 * levels) * (255 / levels)
    palette = Image.fromarray(np.rint(coarse / 255 * levels).astype(np.uint8), "P")
    palette.putpalette([value for level in range(levels + 1) for value in [round(level * 255 / levels)] * 3])
    expected = preprocess(np.rint(coarse).astype(np.uint8)).pixels
    np.testing.assert_array_equal(preprocess(encoded(palette, "PNG", bits=bits)).pixels, expected)
    if bits == 1:
        black_and_white = Image.fromarray(coarse > 128)
        for format in ("PNG", "BMP", "TIFF", "GIF"):
            np.testing.assert_array_equal(preprocess(encoded(black_and_white, format)).pixels, expected)
        fax = encoded(black_and_white, "TIFF", compression="group4")
        np.testing.assert_array_equal(preprocess(fax).pixels, expected)


# Which tag is read depends on the format, how an image is turned does not.
@pytest.mark.parametrize(
    ("format", "orientation"),
    [*(("PNG", number) for number in range(1, 9)), *itertools.product(["JPEG", "WEBP", "TIFF"], [3, 6])],
)
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, format: str) -> None:
    # What the eight values mean for row 0 and column 0 of the stored image: Exif 2.32, table 4.6.A.
    stored: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda image: image,
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: lambda image: image.T,
        6: lambda image: np.rot90(image, 1),
        7: lambda image: np.rot90(image, 2).T,
        8: lambda image: np.rot90(image, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = on_paper(DIGITS[0])[:, 10:]  # not square
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    Image.fromarray(np.ascontiguousarray(stored[orientation](upright))).convert("RGB").save(
        tmp_path / "digit", format, exif=exif, **options
    )
    expected = preprocess(upright).pixels
    tolerance = 40 if format == "JPEG" else 0  # JPEG is lossy: an edge pixel of 28×28 may differ by that much
    image, from_file = preprocess_file(tmp_path / "digit")
    with Image.open(tmp_path / "digit") as opened:
        from_image = preprocess(opened)
    for result in (from_file, from_image, preprocess(image)):
        assert np.abs(result.pixels.astype(int) - expected).max() <= tolerance


def photo(digit: Pixels, *, paper: int = 225, ink: int = 45) -> NDArray[np.float64]:
    """Return a digit in the middle of a sheet of paper, float (480, 640)."""
    strokes = 255 - on_paper(digit, size=252, margin=0)
    sheet = np.zeros((HEIGHT, WIDTH))
    sheet[114:366, 194:446] = strokes / 255
    return paper + (ink - paper) * sheet


def to_uint8(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def lines(*, vertical: bool = False, gap: int = 57, thickness: int = 3, slope: float = 0.0) -> NDArray[np.bool_]:
    image = Image.new("1", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    for start in range(20 - 5 * gap, WIDTH + 5 * gap, gap):
        ends = (
            [(start, 0), (start + slope * HEIGHT, HEIGHT)] if vertical else [(0, start), (WIDTH, start + slope * WIDTH)]
        )
        draw.line(ends, fill=1, width=thickness)
    return np.asarray(image)


DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH]
SHADOW = 1 - 0.5 / (1 + np.exp(-(ACROSS + 0.6 * DOWN - 440) / 10))  # soft, at a slant through the digit
NOISE = np.random.default_rng(3).normal(0, 10, (HEIGHT, WIDTH))
SHORT_MARGIN = (abs(ACROSS - 400) < 2) & (abs(DOWN - HEIGHT / 2) < 0.45 * HEIGHT)
TABLE = (ACROSS < 14) | (DOWN > HEIGHT - 20) | (ACROSS > WIDTH - 5 - DOWN // 60)

NUISANCES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "a shadow": lambda image: image * SHADOW,
    "uneven light": lambda image: image * (1 - 0.5 * ACROSS / WIDTH),
    "noise": lambda image: image + NOISE,
    "a grey paper": lambda image: image * 0.5,
    "ruled lines": lambda image: np.where(lines(slope=0.02), np.minimum(image, 130), image),
    "dark ruled lines": lambda image: np.where(lines(slope=-0.01), np.minimum(image, 60), image),
    "squared paper": lambda image: np.where(lines() | lines(vertical=True), np.minimum(image, 150), image),
    "a margin": lambda image: np.where(lines(vertical=True, gap=500, slope=0.02), np.minimum(image, 90), image),
    "a margin through the digit": lambda image: np.where(SHORT_MARGIN, np.minimum(image, 130), image),
    "a table's edge": lambda image: np.where(TABLE, 60, image),
    "dust": lambda image: np.where(np.random.default_rng(4).random(image.shape) < 1e-4, 40, image),
    "blur": lambda image: np.asarray(Image.fromarray(to_uint8(image)).filter(ImageFilter.GaussianBlur(3)), np.float64),
    "JPEG": lambda image: np.asarray(encoded(Image.fromarray(to_uint8(image)), "JPEG", quality=20), np.float64),
}


DARK_AND_LIGHT = [(name, invert) for name in NUISANCES for invert in (False, True)]
DARK_AND_LIGHT.remove(("a shadow", True))  # it darkens paper, but would have to brighten a board
DARK_AND_LIGHT.remove(("uneven light", True))


@pytest.mark.parametrize(("name", "invert"), DARK_AND_LIGHT)
def test_other_things_in_the_photo_do_not_matter(name: str, invert: bool) -> None:
    for digit in DIGITS[:4]:
        plain, disturbed = to_uint8(photo(digit)), to_uint8(NUISANCES[name](photo(digit)))
        result = preprocess(255 - disturbed if invert else disturbed)
        assert result.ink == ("light" if invert else "dark")
        expected = preprocess(plain).pixels
        # Where a line is removed, or the paper is uneven, an edge moves by a fraction of a pixel of 28×28.
        assert best_correlation(result.pixels, expected) > 0.9


@pytest.mark.parametrize("width", [1, 40])
def test_thin_and_thick_strokes_are_adjusted_towards_those_of_mnist(width: int) -> None:
    paper = Image.new("L", (500, 500), 255)
    ImageDraw.Draw(paper).line([(120, 80), (350, 80), (220, 420)], fill=0, width=width, joint="curve")
    pixels = preprocess(paper).pixels
    # Measured in the rows of the vertical stroke: 99 of 100 training images have a mean stroke of 1.5 to 4.6 pixels.
    across = (pixels[10:20] / 255).sum(axis=1)
    assert 1.3 < np.median(across) < 5
    assert (pixels[10:20].max(axis=1) > 128).all()


def test_ink_selects_dark_or_light_digits() -> None:
    zero = np.full((200, 200), 255, np.uint8)
    zero[40:160, 60:140] = 0
    zero[70:130, 85:115] = 255
    assert preprocess(zero).ink == preprocess(zero, "dark").ink == "dark"
    hole = preprocess(zero, "light")
    assert hole.ink == "light"
    assert hole.box == pytest.approx((85 / 200, 70 / 200, 115 / 200, 130 / 200))
    with pytest.raises(ValueError, match="auto, dark or light"):
        preprocess(zero, "black")  # type: ignore[arg-type]


@pytest.mark.parametrize("ink", ["auto", "dark"])
def test_the_bounding_box_surrounds_the_digit(ink: InkChoice) -> None:
    paper = Image.new("L", (3000, 2000), 255)
    ImageDraw.Draw(paper).rectangle((300, 1000, 399, 1399), fill=0)  # both corners are included
    assert preprocess(paper, ink).box == pytest.approx((0.1, 0.5, 400 / 3000, 0.7), abs=0.002)


BLANK: dict[str, Callable[[], Pixels]] = {
    "white": lambda: np.full((HEIGHT, WIDTH), 255, np.uint8),
    "black": lambda: np.zeros((HEIGHT, WIDTH), np.uint8),
    "grey": lambda: np.full((HEIGHT, WIDTH), 128, np.uint8),
    "28×28 black": lambda: np.zeros((28, 28), np.uint8),
    "noise": lambda: to_uint8(200 + NOISE),
    "nothing but noise": lambda: np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8),
    "a shadow": lambda: to_uint8(220 * SHADOW),
    "ruled paper": lambda: np.where(lines(slope=0.01), np.uint8(120), np.uint8(225)),
    "squared paper": lambda: np.where(lines() | lines(vertical=True), np.uint8(120), np.uint8(225)),
    "a table's edge": lambda: np.where(TABLE, np.uint8(60), np.uint8(225)),
    "dust": lambda: np.where(np.random.default_rng(6).random((HEIGHT, WIDTH)) < 1e-3, np.uint8(20), np.uint8(230)),
    "one pixel": lambda: np.array([[7]], np.uint8),
    "one row": lambda: np.arange(200, dtype=np.uint8)[None],
    "one column": lambda: np.arange(200, dtype=np.uint8)[:, None],
}


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_page_shows_no_digit(name: str) -> None:
    with pytest.raises(ImageError, match="no digit found"):
        preprocess(BLANK[name]())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((28, 28), np.float32),
        np.zeros((28, 28), bool),
        np.zeros((28, 28, 2), np.uint8),
        np.zeros((28, 28, 1, 1), np.uint8),
        np.zeros(28, np.uint8),
        np.zeros((0, 28), np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_of_another_type_or_shape_are_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="an image must be uint8"):
        preprocess(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1.0, 1e6, np.nan, np.inf])
def test_32_bit_values_of_an_unknown_range_are_refused(value: float) -> None:
    values = np.zeros((50, 50), np.float32)
    values[20:30, 20:30] = value
    with pytest.raises(ImageError, match="32-bit values"):
        preprocess(Image.fromarray(values))


def test_grey_and_colour_arrays_of_an_image_give_the_same_pixels() -> None:
    grey = np.asarray(GREY)
    expected = preprocess(GREY).pixels
    np.testing.assert_array_equal(preprocess(grey).pixels, expected)
    np.testing.assert_array_equal(preprocess(np.stack([grey] * 3, axis=2)).pixels, expected)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    np.testing.assert_array_equal(preprocess(opaque).pixels, expected)


def test_a_digit_that_touches_the_edges_is_found() -> None:
    for digit in DIGITS[:10]:
        page = on_paper(digit)
        rows, columns = np.nonzero(page < 128)
        cut = page[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        found = find_digit(cut, ("dark", "light"))
        assert found is not None
        assert found.ink == "dark"
        assert found.box == pytest.approx((0, 0, cut.shape[1], cut.shape[0]), abs=2)
