import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_lightning.errors import ImageError
from mnist_lightning.images.reader import MAX_FILE_BYTES, MIN_DETAIL, find_image_files, read_image
from mnist_lightning.inference.digits.preprocess import SIDE, NetworkInput, preprocess_file
from tests.inference.digits.drawn import mnist_images, on_paper

DIGIT = Image.fromarray(on_paper(mnist_images(1)[0]))


def content(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its few pixels do not fill."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a text": (lambda: b"I am an image", "not a PNG, JPEG, BMP, WebP, TIFF or GIF image"),
    "nothing": (lambda: b"", "the file is empty"),
    "a page of HTML": (lambda: b"<html><img src=7.png></html>", "not a PNG"),
    "a pickle": (lambda: b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "not a PNG"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG"),
    "PostScript, for which Pillow would run another program": (lambda: content(DIGIT, "EPS"), "not a PNG"),
    "an icon, which Pillow reads": (lambda: content(DIGIT, "ICO"), "not a PNG"),
    "PPM, which Pillow reads": (lambda: content(DIGIT, "PPM"), "not a PNG"),
    "half a PNG": (lambda: content(DIGIT, "PNG")[:600], "corrupted"),
    "half a JPEG": (lambda: content(DIGIT, "JPEG")[:1200], "corrupted"),
    "half a TIFF": (lambda: content(DIGIT, "TIFF", compression="tiff_lzw")[:900], "corrupted"),
    "half a WebP": (lambda: content(DIGIT, "WEBP")[:300], "corrupted"),
    "half a GIF": (lambda: content(DIGIT, "GIF")[:900], "corrupted"),
    "half a BMP": (lambda: content(DIGIT, "BMP")[:2000], "corrupted"),
    "a decompression bomb of 10 KB": (lambda: png_claiming(9000, 9000), "9000×9000 pixels, more than 16 megapixels"),
    "a decompression bomb that Pillow recognises": (lambda: png_claiming(60_000, 60_000), "more than 16 megapixels"),
    "one row of two billion pixels": (lambda: png_claiming(2**31 - 1, 1), "more than 16 megapixels"),
    "no columns": (lambda: png_claiming(0, 28), "corrupted"),
    "fewer pixels than claimed": (lambda: png_claiming(300, 300), "corrupted"),
    "too many bytes": (lambda: content(DIGIT, "PNG") + bytes(MAX_FILE_BYTES), "more than 20 MiB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_an_image_is_refused_in_one_line_with_its_name(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = HOSTILE[name]
    path = tmp_path / "seven.png"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=reason) as refused:
        read_image(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).isprintable()
    assert capfd.readouterr() == ("", "")  # libtiff writes to stderr directly


def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(3900, 4100) + bytes(10))  # just below 16 megapixels
    script = (
        "import resource, sys\n"
        "from mnist_lightning.images.reader import read_image\n"
        "from mnist_lightning.errors import ImageError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_image(sys.argv[1])\nexcept ImageError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "bomb.png")]
    grown_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_kib < 200 * 1024


@pytest.mark.parametrize("suffix", [".jpg", ".txt", ""])
def test_the_format_is_recognised_whatever_the_file_is_called(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Sieben ✓{suffix}"
    path.write_bytes(content(DIGIT, "PNG"))
    np.testing.assert_array_equal(np.asarray(read_image(path)), np.asarray(DIGIT))


def test_the_message_distinguishes_missing_files_from_what_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, reason in {
        "fifo.png": r"/fifo\.png: not a regular file$",
        ".": "not a regular file$",
        "none.png": "no such file or folder",
        "loop.png": "cannot be read: Too many levels of symbolic links",
        "zero\0.png": "cannot be read: ",
    }.items():
        with pytest.raises(ImageError, match=reason) as refused:
            read_image(tmp_path / name)
        assert str(refused.value).count(": ") <= reason.count(": ") + 1, "the message names the file once"


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_read_permission_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(content(DIGIT, "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match=r"secret\.png: cannot be read: Permission denied"):
        read_image(path)


def test_escape_codes_in_a_file_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"clear\\x1b\[2J\\nscreen") as refused:
        read_image(tmp_path / "clear\x1b[2J\nscreen.png")
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_photo_is_reduced_and_its_digit_still_found(tmp_path: Path, format: str) -> None:
    photo = Image.new("L", (4000, 3000), 230)
    photo.paste(DIGIT.resize((992, 992)), (1500, 1000))
    path = tmp_path / "photo"
    path.write_bytes(content(photo, format))
    image, found = preprocess_file(path)
    assert MIN_DETAIL <= max(image.size) < 2 * MIN_DETAIL
    assert image.width / image.height == pytest.approx(4 / 3, abs=0.01)
    left, top, right, bottom = found.box
    assert 1500 / 4000 < left < right < 2492 / 4000
    assert 1000 / 3000 < top < bottom < 1992 / 3000


def test_a_folder_stands_for_all_its_images_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "d/c.tiff", "notes.txt", ".hidden.png", ".git/d.png", "a.jpg.input.png", "e.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = tmp_path / "notes.txt"
    found, errors = find_image_files([str(tmp_path), str(named)])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.jpg", "b.PNG", "e.heic", "d/c.tiff", "notes.txt"]
    assert not errors


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    found, errors = find_image_files([str(tmp_path)])
    assert not found
    assert [str(error) for error in errors] == [
        f"{tmp_path}: the folder contains no images (.png, .jpg, .jpeg, .jfif, .bmp, .webp, .tif, .tiff, .gif)"
    ]


# Small, so that corrupted bytes matter; one for each decoder, and for each compression in TIFF.
SMALL = DIGIT.resize((40, 40))
VALID = [
    content(SMALL, "PNG"),
    content(SMALL.convert("P"), "PNG", bits=4),
    content(SMALL, "JPEG"),
    content(SMALL.convert("CMYK"), "JPEG", progressive=True),
    content(SMALL, "BMP"),
    content(SMALL.convert("RGB"), "WEBP"),
    content(SMALL.convert("RGBA"), "WEBP", lossless=True),
    content(SMALL, "GIF"),
    content(SMALL, "TIFF"),
    content(SMALL, "TIFF", compression="tiff_lzw"),
    content(SMALL, "TIFF", compression="jpeg"),
    content(SMALL.convert("1"), "TIFF", compression="group4"),
]


def read_or_error(data: bytes) -> tuple[Image.Image, NetworkInput] | ImageError:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return preprocess_file(file.name)
        except ImageError as error:
            return error


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    valid=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    length=st.integers(1, 5000),
)
def test_a_corrupted_image_is_read_or_raises_an_image_error(
    valid: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(valid)
    for place, value in changes:
        data[place % len(data)] = value
    result = read_or_error(bytes(data[:length]))
    if isinstance(result, ImageError):
        assert str(result).isprintable()
    else:
        image, found = result
        assert image.mode in ("L", "RGB")
        assert found.pixels.shape == (SIDE, SIDE)
        assert found.pixels.dtype == np.uint8
        assert found.pixels.any()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=300), head=st.sampled_from([b"", *(valid[:12] for valid in VALID)]))
def test_random_bytes_are_read_or_raise_an_image_error(data: bytes, head: bytes) -> None:
    result = read_or_error(head + data)
    assert not isinstance(result, ImageError) or str(result).isprintable()
