"""A picture beside what the network saw of it, for people to look at."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.console import printable
from mnist_lightning.errors import StorageError
from mnist_lightning.images.reader import CONTACT_SHEET_SUFFIX
from mnist_lightning.inference.digits.preprocess import NetworkInput

HEIGHT = 280  # pixels; ten for one of the 28 that are seen of a digit
GAP = 12
MAX_NAME = 100  # characters; with the suffix a name stays within what file systems take, in any script
BACKGROUND, OUTLINE = (128, 128, 128), (230, 159, 0)  # orange of Okabe and Ito's palette, seen by all kinds of eyes


def draw_contact_sheet(picture: Image.Image, seen: NetworkInput) -> Image.Image:
    """Return a picture with an outline around the digit, and beside it the pixels of the network, enlarged."""
    scale = HEIGHT / picture.height
    width = min(max(1, round(picture.width * scale)), 4 * HEIGHT)
    shown = picture.convert("RGB").resize((width, HEIGHT))
    left, top, right, bottom = seen.box
    corners = (left * width - 2, top * HEIGHT - 2, right * width + 1, bottom * HEIGHT + 1)
    ImageDraw.Draw(shown).rectangle(corners, outline=OUTLINE, width=2)
    sheet = Image.new("RGB", (width + GAP + HEIGHT, HEIGHT), BACKGROUND)
    sheet.paste(shown, (0, 0))
    pixels = Image.fromarray(seen.pixels).resize((HEIGHT, HEIGHT), Image.Resampling.NEAREST)
    sheet.paste(pixels, (width + GAP, 0))
    return sheet


def save_contact_sheet(folder: Path, name: str, taken: set[str], picture: Image.Image, seen: NetworkInput) -> None:
    """Save the sheet of the picture of a file name as `<name>.input.png`, `<name>-2.input.png`, … in a folder.

    Args:
        folder: Where to; it exists.
        name: The picture's file name.
        taken: The names that sheets of this folder have; this one's is added.
        picture: As `draw_contact_sheet`.
        seen: As `draw_contact_sheet`.

    Raises:
        StorageError: If it cannot be written.
    """
    stem = unique = printable(name)[:MAX_NAME]
    number = 1
    while unique.casefold() in taken:  # some file systems do not tell 7.png from 7.PNG
        number += 1
        unique = f"{stem}-{number}"
    taken.add(unique.casefold())
    path = folder / f"{unique}{CONTACT_SHEET_SUFFIX}"
    file = BytesIO()
    draw_contact_sheet(picture, seen).save(file, "PNG")
    try:
        replace_file(path, file.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write {printable(str(path))}: {error.strerror or error}") from error
