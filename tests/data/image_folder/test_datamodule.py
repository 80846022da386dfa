"""Folders of images: finding, resizing and splitting them, without duplicates across splits."""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as F

from mnist_lightning import MNISTDataModule, PictureFolderDataModule
from mnist_lightning.data.image_folder.duplicates import split_images
from mnist_lightning.data.image_folder.index import UNSPLIT, ClassFolders, read_class_folders
from mnist_lightning.errors import ConfigError, DatasetError
from mnist_lightning.images.reader import letterbox
from tests.data.image_folder.small_images import ready, write_classes, write_image


def test_files_and_labels_are_those_that_torchvision_finds(shapes: Path) -> None:
    write_image(shapes / "square" / "deeper" / "x.png", 1)
    (shapes / "square" / "notes.txt").write_text("not an image")
    found, theirs = read_class_folders(shapes), ImageFolder(str(shapes))
    assert list(found.class_names) == theirs.classes
    ours = {str(shapes / file): int(label) for file, label in zip(found.files, found.labels, strict=True)}
    assert ours == dict(theirs.samples)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "TEST")])
def test_split_folders_are_used_as_they_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    for place, name in enumerate(names):
        write_classes(tmp_path / "mine" / name, 2 + place, first_seed=100 * place)
    data = ready(tmp_path / "mine")
    assert {name: len(data.image_files(name)) for name in ("train", "val", "test")} == {"train": 4, "val": 6, "test": 8}
    assert all(file.startswith(names[1]) for file in data.image_files("val"))


def test_a_class_may_be_named_like_a_split(tmp_path: Path) -> None:
    write_classes(tmp_path / "mine", 3, ("car", "train"))
    assert read_class_folders(tmp_path / "mine").class_names == ("car", "train")


def test_a_missing_split_is_held_out_from_the_training_images(tmp_path: Path) -> None:
    write_classes(tmp_path / "mine" / "train", 20)
    write_classes(tmp_path / "mine" / "test", 3, first_seed=100)
    data = ready(tmp_path / "mine")
    assert len(data.image_files("test")) == 6
    assert len(data.image_files("val")) == 6
    assert sorted(data.image_files("train") + data.image_files("val")) == sorted(
        str(file.relative_to(tmp_path / "mine")) for file in (tmp_path / "mine" / "train").rglob("*.png")
    )


def test_the_split_is_stratified_and_depends_on_its_seed_alone(shapes: Path) -> None:
    data = ready(shapes)
    splits = {name: data.image_files(name) for name in ("train", "val", "test")}
    assert {name: len(files) for name, files in splits.items()} == {"train": 42, "val": 9, "test": 9}
    for name, each in (("train", 14), ("val", 3), ("test", 3)):
        assert [sum(file.startswith(shape) for file in splits[name]) for shape in data.class_names] == [each] * 3
    assert len({file for files in splits.values() for file in files}) == 60
    again, other = ready(shapes, seed=7), ready(shapes, split_seed=1)
    assert again.image_files("test") == splits["test"]
    assert other.image_files("test") != splits["test"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("size", [(40, 40), (64, 32), (15, 21)])
def test_an_image_is_resized_as_torchvision_does_and_padded_with_black(
    size: tuple[int, int], channels: int, mode: str
) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    ours = letterbox(image, 16, channels)
    width, height = (round(side * 16 / max(size)) for side in size)
    theirs = np.asarray(F.resize(image.convert(mode), [height, width]))
    top, left = (16 - height) // 2, (16 - width) // 2
    assert np.array_equal(ours[top : top + height, left : left + width], theirs)
    ours[top : top + height, left : left + width] = 0
    assert not ours.any()


def test_mnist_as_a_folder_of_images_gives_the_batches_of_mnist(digits_dir: Path, tmp_path: Path) -> None:
    """Both data modules serve the same pixels, normalised in the same way, in the same order."""
    mnist = MNISTDataModule(str(digits_dir), batch_size=10, val_size=0)
    mnist.prepare_data()
    mnist.setup("fit")
    images, labels = mnist.samples("train").inputs, mnist.samples("train").labels
    order = np.argsort(labels.numpy(), kind="stable")
    for place, index in enumerate(order):
        path = tmp_path / "mine" / "train" / str(int(labels[index])) / f"{place:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index].numpy()).save(path)
    for split, seed in (("val", 0), ("test", 10)):
        write_classes(tmp_path / "mine" / split, 1, tuple("0123456789"), 1000 + seed)
    data = ready(tmp_path / "mine", size=28, colour=False, batch_size=10)
    flat = images.numpy().astype(np.float64) / 255
    assert data.schema.mean == pytest.approx(flat.mean(), abs=5e-5)
    assert data.schema.std == pytest.approx(flat.std(), abs=5e-5)
    ours, theirs = data.train_dataloader(), mnist.train_dataloader()
    theirs.dataset.mean, theirs.dataset.std = ours.dataset.mean, ours.dataset.std  # type: ignore[attr-defined]
    theirs.dataset.indices = torch.from_numpy(order)
    for (our_images, our_labels), (their_images, their_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(our_images, their_images)
        assert torch.equal(our_labels, their_labels)


def test_colour_channels_are_red_green_blue(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        for number in range(4):
            image = Image.new("RGB", (9, 9), colour)
            image.putpixel((number, 0), (255, 255, 255))
            (tmp_path / "mine" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "mine" / name / f"{number}.png")
    data = ready(tmp_path / "mine", size=9)
    (batch, labels), *_ = data.train_dataloader()
    assert batch.shape == (4, 3, 9, 9)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    pixels = batch[:, :, 4, 4] * data.schema.std + data.schema.mean
    expected = torch.tensor([(0.0, 0.0, 1.0), (1.0, 0.0, 0.0)])[labels]
    assert torch.allclose(pixels, expected, atol=1e-6)


@given(
    classes=st.lists(st.lists(st.integers(0, 12), min_size=6, max_size=30), min_size=2, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_every_image_is_in_one_split_and_duplicates_are_in_the_same(classes: list[list[int]], seed: int) -> None:
    """Duplicates stay together, in whatever class folders they lie."""
    digests = [f"{place}-{content}" for place, contents in enumerate(classes) for content in contents]
    labels = np.repeat(np.arange(len(classes)), [len(contents) for contents in classes])
    if min(len(set(contents)) for contents in classes) < 3:
        return
    names = tuple(map(str, range(len(classes))))
    files = tuple(f"{label}/{place}" for place, label in enumerate(labels))
    folders = ClassFolders(Path("mine"), names, files, labels, {UNSPLIT: np.arange(len(labels))})
    splits, _ = split_images(folders, digests, seed)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
    held = [{digests[place] for place in indices} for indices in splits.values()]
    assert sum(map(len, held)) == len(set().union(*held))


def test_duplicates_of_scored_images_are_removed_from_training_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    for place, split in enumerate(("train", "val", "test")):
        write_classes(mine / split, 4, first_seed=100 * place)
    shutil.copy(mine / "test/a/0.png", mine / "train/a/copy.png")
    Image.open(mine / "test/b/1.png").save(mine / "val/b/same_pixels.bmp")
    shutil.copy(mine / "val/b/same_pixels.bmp", mine / "train/b/third.bmp")
    data = ready(mine)
    assert {name: len(data.image_files(name)) for name in ("train", "val", "test")} == {"train": 8, "val": 8, "test": 8}
    copies = (
        "val/b/same_pixels.bmp (same pixels as test/b/1.png), train/a/copy.png (same pixels as test/a/0.png), "
        "train/b/third.bmp (same pixels as test/b/1.png)"
    )
    assert f"removed as duplicates: {copies}\n" in capsys.readouterr().out
    validated = PictureFolderDataModule(str(mine), data_dir=str(tmp_path / "data"))
    validated.restore({**vars(data.schema), "origin": vars(data.schema.origin)})
    validated.setup("validate")
    assert validated.image_files("val") == data.image_files("val")


def test_the_same_pixels_in_two_classes_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "mine", 6)
    shutil.copy(tmp_path / "mine/a/0.png", tmp_path / "mine/b/other.png")
    ready(tmp_path / "mine")
    assert "same pixels in two classes: b/other.png and a/0.png\n" in capsys.readouterr().out


def test_images_outside_class_folders_are_named_and_system_folders_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write_classes(tmp_path / "mine", 6)
    write_image(mine / "cover.png", 99)
    write_image(mine / "__MACOSX" / "a.png", 98)
    write_image(mine / ".hidden" / "a.png", 97)
    data = ready(mine)
    assert data.class_names == ("a", "b")
    assert f"not used, because they lie in no class folder: {mine / 'cover.png'}\n" in capsys.readouterr().out


def test_a_removed_test_folder_is_reported(tmp_path: Path) -> None:
    for place, split in enumerate(("train", "val", "test")):
        write_classes(tmp_path / "mine" / split, 3, first_seed=100 * place)
    trained = ready(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "test")
    data = PictureFolderDataModule(str(tmp_path / "mine"), data_dir=str(tmp_path / "data"))
    data.restore(asdict(trained.schema))
    data.prepare_data()
    with pytest.raises(DatasetError, match="mine had a folder test when the network was trained on it, and has none"):
        data.setup("test")


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "mine cannot be read: No such file or directory"),
        (lambda root: root.symlink_to(root), "mine cannot be read: Too many levels of symbolic links"),
        (lambda root: write_bytes(root, b""), "mine cannot be read: Not a directory"),
        (
            lambda root: root.mkdir(),
            "mine must hold a folder of images for each of 2 to 1000 classes; found none",
        ),
        (lambda root: write_image(root / "a" / "0.png", 0), "each of 2 to 1000 classes; found a"),
        (lambda root: (write_classes(root, 3), (root / "c").mkdir()), "mine/c: the folder contains no images"),
        (lambda root: (write_classes(root, 3), write_classes(root, 2, ("c",), 50)), "the class c has 2 different"),
        (
            lambda root: [write_classes(root / split, 1, first_seed=7) for split in ("val", "test")],
            "but no folder train",
        ),
        (
            lambda root: [write_classes(root / split, 3) for split in ("train", "val", "valid")],
            "two folders for the same",
        ),
        (lambda root: [write_classes(root / split, 3) for split in ("train", "test")], "the class a has 0 different"),
        (
            lambda root: (
                write_classes(root / "train", 9),
                write_classes(root / "test", 3, ("a", "b", "c"), 60),
            ),
            "the class c has 0 different images to split; at least 2 needed",
        ),
    ],
)
def test_an_unusable_folder_is_rejected(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "mine")
    with pytest.raises(DatasetError) as caught:
        ready(tmp_path / "mine")
    assert message in str(caught.value)


def test_a_class_whose_name_is_not_text_is_rejected(tmp_path: Path) -> None:
    write_classes(tmp_path / "mine", 3)
    os.mkdir(os.fsencode(tmp_path / "mine") + b"/\xff")
    with pytest.raises(DatasetError, match="name is not text"):
        ready(tmp_path / "mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": ""}, "data.folder must name a folder of images"),
        ({"folder": "\udcff"}, "data.folder must be text"),
        ({"folder": "a\0b"}, "data.folder must be text"),
        ({"data_dir": "\udcff"}, "data.data_dir must be text"),
        ({"folder": "."}, "data.data_dir must lie outside of data.folder"),
        ({"data_dir": "mine/cache"}, "data.data_dir must lie outside of data.folder"),
        ({"size": 7}, r"data.size must be in \[8, 256\], got 7"),
        ({"batch_size": 0}, "data.batch_size must be at least 1"),
        ({"flip": 1.0}, r"data.flip must be in \[0, 1\), got 1"),
    ],
)
def test_options_out_of_range_are_rejected(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PictureFolderDataModule(**{"folder": "mine"} | options)  # type: ignore[arg-type]
