"""Contact sheets: an image beside what the network saw of it, for people to look at."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from mnist_lightning.atomic_write import write_output_file
from mnist_lightning.console import printable
from mnist_lightning.images.reader import CONTACT_SHEET_SUFFIX
from mnist_lightning.inference.digits.preprocess import NetworkInput

HEIGHT = 280  # pixels: ten for each of the 28 that the network sees of a digit
GAP = 12
MAX_NAME = 100  # characters; keeps a name, with its suffix, within the limits of file systems in any script
BACKGROUND, OUTLINE = (128, 128, 128), (230, 159, 0)  # Okabe and Ito's orange, visible with any colour vision


def draw_contact_sheet(image: Image.Image, network_input: NetworkInput) -> Image.Image:
    """Return an image with the digit outlined, and beside it the enlarged pixels that the network saw."""
    scale = HEIGHT / image.height
    width = min(max(1, round(image.width * scale)), 4 * HEIGHT)
    outlined = image.convert("RGB").resize((width, HEIGHT))
    left, top, right, bottom = network_input.box
    corners = (left * width - 2, top * HEIGHT - 2, right * width + 1, bottom * HEIGHT + 1)
    ImageDraw.Draw(outlined).rectangle(corners, outline=OUTLINE, width=2)
    sheet = Image.new("RGB", (width + GAP + HEIGHT, HEIGHT), BACKGROUND)
    sheet.paste(outlined, (0, 0))
    pixels = Image.fromarray(network_input.pixels).resize((HEIGHT, HEIGHT), Image.Resampling.NEAREST)
    sheet.paste(pixels, (width + GAP, 0))
    return sheet


def save_contact_sheet(folder: Path, name: str, taken: set[str], sheet: Image.Image) -> None:
    """Save the contact sheet of an image as `<name>.input.png`, or `<name>-2.input.png` and so on if that is taken.

    The folder must exist. `taken` are the names used in it so far, in lower case; the new one is added.
    """
    stem = unique = printable(name)[:MAX_NAME]
    number = 1
    while unique.casefold() in taken:  # some file systems do not distinguish 7.png from 7.PNG
        number += 1
        unique = f"{stem}-{number}"
    taken.add(unique.casefold())
    file = BytesIO()
    sheet.save(file, "PNG")
    write_output_file(folder / f"{unique}{CONTACT_SHEET_SUFFIX}", file.getvalue())
