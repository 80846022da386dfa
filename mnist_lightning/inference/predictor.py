"""Predictor: a trained network for a person's own pictures, from Python. No Lightning."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_lightning.images.letterbox import letterbox
from mnist_lightning.images.reader import read_image
from mnist_lightning.inference.digits.preprocess import (
    InkChoice,
    NetworkInput,
    Pixels,
    preprocess,
    preprocess_file,
    to_plain_image,
)
from mnist_lightning.inference.network import TrainedNetwork, load_network
from mnist_lightning.inference.predict.output import GUESSES
from mnist_lightning.inference.prediction import ClassProbability, Prediction

Picture = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
PictureT = TypeVar("PictureT", bound=Picture)


class Predictor:
    """Label pictures of digits, or whole pictures where the network was trained on folders of them.

    `Predictor.from_run("best")("digit.png").label` is the shortest use.

    Args:
        trained: A trained network.
        unsure_below: Probability in [0, 1] below which an answer counts as unsure; None takes the one that was fitted
            on the validation images and travels in the checkpoint or, where there were none, 0.9.

    Raises:
        ValueError: If the threshold is out of range.
    """

    def __init__(self, trained: TrainedNetwork, unsure_below: float | None = None) -> None:
        if unsure_below is None:
            unsure_below = trained.calibration.unsure_below
        if not 0 <= unsure_below <= 1:
            raise ValueError(f"unsure_below must be in [0, 1], got {unsure_below}")
        self.trained = trained
        self.unsure_below = unsure_below
        self._network = trained.pixel_network

    @classmethod
    def from_run(
        cls, reference: str = "best", root: str | os.PathLike[str] = ".", unsure_below: float | None = None
    ) -> "Predictor":
        """Return a predictor with the network of a run.

        Args:
            reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or a checkpoint file.
            root: Folder that holds `lightning_logs` and `checkpoints`.
            unsure_below: Probability in [0, 1] below which an answer counts as unsure; None takes the checkpoint's own.

        Raises:
            CheckpointError: If there is none, or it is damaged or of another network.
            ValueError: If the threshold is out of range.
        """
        return cls(load_network(reference, Path(root)), unsure_below)

    @overload
    def __call__(self, pictures: Picture, ink: InkChoice = "auto") -> Prediction: ...

    @overload
    def __call__(
        self, pictures: list[PictureT] | tuple[PictureT, ...], ink: InkChoice = "auto"
    ) -> list[Prediction]: ...

    def __call__(
        self, pictures: Picture | list[PictureT] | tuple[PictureT, ...], ink: InkChoice = "auto"
    ) -> Prediction | list[Prediction]:
        """Find the digit in each picture and label it; a network for whole pictures labels the picture.

        Args:
            pictures: A picture, or a list of pictures of any kinds and sizes: the path of a file; a Pillow image; an
                array uint8 (H, W), (H, W, 3) or (H, W, 4); a tensor (H, W), (1, H, W) or (3, H, W), uint8 or float in
                [0, 1].
            ink: Whether the ink is darker or lighter than the paper; `auto` finds out for each picture. Of a whole
                picture it means nothing.

        Returns:
            A prediction, or a list of them for a list.

        Raises:
            ImageError: If a file cannot be read as a picture, or a picture shows no digit.
            TypeError: If something else is given.
            ValueError: If an array or a tensor has another type, shape or range.
        """
        if not isinstance(pictures, list | tuple):
            return self([pictures], ink)[0]
        return self.predict_preprocessed([self.preprocess(picture, ink)[1] for picture in pictures])

    def preprocess(self, picture: Picture, ink: InkChoice = "auto") -> tuple[Image.Image, NetworkInput]:
        """Return a picture, upright and flat, and what the network sees of it.

        Args:
            picture: As for a call.
            ink: As for a call.

        Raises:
            ImageError: If a file cannot be read as a picture, or a digit is looked for in vain.
            TypeError: If something else is given.
            ValueError: If an array or a tensor has another type, shape or range.
        """
        schema = self.trained.schema
        if not isinstance(picture, str | os.PathLike):
            flat = to_plain_image(_image_or_array(picture))
        elif schema.origin:
            flat = read_image(picture)
        else:
            return preprocess_file(picture, ink)
        if schema.origin:
            return flat, NetworkInput(letterbox(flat, schema.height, schema.channels), ink=None)
        return flat, preprocess(flat, ink)

    def predict_preprocessed(self, pictures: list[NetworkInput]) -> list[Prediction]:
        """Label pictures that `data.pictures` has prepared."""
        if not pictures:
            return []
        predictions = self.predict_pixels(np.stack([picture.pixels for picture in pictures]))
        return [replace(made, input=picture) for made, picture in zip(predictions, pictures, strict=True)]

    def predict_pixels(self, images: Pixels | Tensor) -> list[Prediction]:
        """Label images that are in the form of the network's data already, without looking for a digit in them.

        Args:
            images: uint8 (B, 28, 28), for MNIST light ink on black; (B, S, S) or (B, S, S, 3) for whole pictures.

        Raises:
            ValueError: If they have another type or shape.
        """
        pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        schema = self.trained.schema
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != schema.shape:
            given = f"{pixels.dtype} {tuple(pixels.shape)}".removeprefix("torch.")
            raise ValueError(f"images must be uint8 (B, {', '.join(map(str, schema.shape))}), got {given}")
        predictions: list[Prediction] = []
        for start in range(0, len(pixels), schema.eval_batch_size):
            batch = pixels[start : start + schema.eval_batch_size]
            with torch.inference_mode():
                _, probabilities = self._network(batch)
            top3 = probabilities.topk(min(GUESSES, len(schema.class_names)))  # (b, 3)
            predictions += map(self._prediction, top3.values.tolist(), top3.indices.tolist())
        return predictions

    def _prediction(self, probabilities: list[float], classes: list[int]) -> Prediction:
        names = self.trained.schema.class_names
        top3 = tuple(
            ClassProbability(names[index], probability)
            for index, probability in zip(classes, probabilities, strict=True)
        )
        return Prediction(*top3[0], top3, unsure=top3[0].probability < self.unsure_below, index=classes[0])


def _image_or_array(picture: Picture) -> Image.Image | Pixels:
    if not isinstance(picture, Image.Image | np.ndarray | Tensor):
        raise TypeError(f"a picture must be a path, a Pillow image, an array or a tensor, got {type(picture).__name__}")
    return _array(picture) if isinstance(picture, Tensor) else picture


def _array(picture: Tensor) -> Pixels:
    """Return a tensor as an array uint8 (H, W) or (H, W, 3)."""
    given = f"{picture.dtype} {tuple(picture.shape)}".removeprefix("torch.")
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and len(picture) not in (1, 3)):
        raise ValueError(f"a tensor must be (H, W), (1, H, W) or (3, H, W), got {given}; list(batch) splits a batch")
    if not picture.numel():
        raise ValueError(f"a tensor must not be empty, got {given}")
    values = picture.detach().cpu()
    if values.is_floating_point():
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"a float tensor must be in [0, 1], got {values.min():g} to {values.max():g}")
        values = (values * 255).round().to(torch.uint8)
    if values.dtype != torch.uint8:
        raise ValueError(f"a tensor must be uint8 or float, got {given}")
    if values.ndim == 3:
        values = values.permute(1, 2, 0) if len(values) == 3 else values[0]
    return np.ascontiguousarray(values.numpy())
