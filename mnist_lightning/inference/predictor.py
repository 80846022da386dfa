"""Predictor: a trained network for a person's own images, in Python. No Lightning."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.images.reader import letterbox, read_image
from mnist_lightning.inference.digits.preprocess import (
    InkChoice,
    NetworkInput,
    Pixels,
    preprocess,
    preprocess_file,
    to_plain_image,
)
from mnist_lightning.inference.network import TrainedNetwork, load_network
from mnist_lightning.inference.prediction import Prediction, predictions_from

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
ImageLikeT = TypeVar("ImageLikeT", bound=ImageLike)


class Predictor:
    """Label images of digits, or whole images if the network was trained on folders of them.

    The shortest use is `Predictor.from_run("best")("digit.png").label`.

    Args:
        trained: A trained network.
        unsure_below: Probability in [0, 1] below which a prediction counts as unsure. By default it is the one in the
            checkpoint, which was fitted to the validation images, or 0.9 if there were none.

    Raises:
        ValueError: If the threshold is out of range.
    """

    def __init__(self, trained: TrainedNetwork[ImageSchema], unsure_below: float | None = None) -> None:
        self.trained = trained
        self.unsure_below = trained.calibration.unsure_below if unsure_below is None else unsure_below
        if not 0 <= self.unsure_below <= 1:
            raise ValueError(f"unsure_below must be in [0, 1], got {unsure_below}")
        self._network = trained.pixel_network

    @classmethod
    def from_run(
        cls, reference: str = "best", root: str | os.PathLike[str] = ".", unsure_below: float | None = None
    ) -> "Predictor":
        """Return a predictor with the network of a run.

        Args:
            reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or a checkpoint file.
            root: Folder that contains `lightning_logs` and `checkpoints`.
            unsure_below: As in the constructor.

        Raises:
            CheckpointError: If there is none, or it is corrupted or of another network.
            ValueError: If the threshold is out of range.
        """
        return cls(load_network(ImageSchema, reference, Path(root)), unsure_below)

    @overload
    def __call__(self, images: ImageLike, ink: InkChoice = "auto") -> Prediction: ...

    @overload
    def __call__(
        self, images: list[ImageLikeT] | tuple[ImageLikeT, ...], ink: InkChoice = "auto"
    ) -> list[Prediction]: ...

    def __call__(
        self, images: ImageLike | list[ImageLikeT] | tuple[ImageLikeT, ...], ink: InkChoice = "auto"
    ) -> Prediction | list[Prediction]:
        """Find the digit in each image and label it, or label the whole image.

        Args:
            images: An image, or a list of images of any types and sizes: the path of a file; a Pillow image; an array
                uint8 (H, W), (H, W, 3) or (H, W, 4); a tensor (H, W), (1, H, W) or (3, H, W), either uint8 or float in
                [0, 1].
            ink: Whether the digits are darker or lighter than the background; `auto` detects it for each image.
                Ignored for whole images.

        Returns:
            A prediction, or a list of predictions for a list of images.

        Raises:
            ImageError: If a file cannot be read as an image, or an image shows no digit.
            TypeError: If an image is of another type.
            ValueError: If an array or a tensor has another dtype, shape or range.
        """
        if not isinstance(images, list | tuple):
            return self([images], ink)[0]
        return self.predict_preprocessed([self.preprocess(image, ink)[1] for image in images])

    def preprocess(self, image: ImageLike, ink: InkChoice = "auto") -> tuple[Image.Image, NetworkInput]:
        """Return an image, upright and in 8 bits, and what the network sees of it; raises the same errors as a call."""
        schema = self.trained.schema
        if not isinstance(image, str | os.PathLike):
            plain = to_plain_image(_to_image_or_array(image))
        elif schema.origin:
            plain = read_image(image)
        else:
            return preprocess_file(image, ink)
        if schema.origin:
            return plain, NetworkInput(letterbox(plain, schema.height, schema.channels), ink=None)
        return plain, preprocess(plain, ink)

    def predict_preprocessed(self, inputs: list[NetworkInput]) -> list[Prediction]:
        """Label images that were preprocessed."""
        if not inputs:
            return []
        predictions = self.predict_pixels(np.stack([each.pixels for each in inputs]))
        return [replace(prediction, input=each) for prediction, each in zip(predictions, inputs, strict=True)]

    def predict_pixels(self, images: Pixels | Tensor) -> list[Prediction]:
        """Label images that already have the form of the training images; no digit is looked for.

        Args:
            images: uint8 (B, 28, 28), light on black for MNIST; (B, S, S) or (B, S, S, 3) for whole images.

        Raises:
            ValueError: If they have another dtype or shape.
        """
        pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        schema = self.trained.schema
        if pixels.dtype != torch.uint8 or pixels.shape[1:] != schema.shape:
            raise ValueError(f"images must be uint8 (B, {', '.join(map(str, schema.shape))}), got {_described(pixels)}")
        predictions: list[Prediction] = []
        for batch in torch.split(pixels, schema.eval_batch_size):
            with torch.inference_mode():
                _, probabilities = self._network(batch)
            predictions += predictions_from(probabilities, schema.class_names, self.unsure_below)
        return predictions


def _to_image_or_array(image: ImageLike) -> Image.Image | Pixels:
    """Return a tensor as an array uint8 (H, W) or (H, W, 3), and a Pillow image or an array as it is."""
    if isinstance(image, Image.Image | np.ndarray):
        return image
    if not isinstance(image, Tensor):
        raise TypeError(f"an image must be a path, a Pillow image, an array or a tensor, got {type(image).__name__}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and len(image) not in (1, 3)) or not image.numel():
        raise ValueError(
            f"a tensor must be (H, W), (1, H, W) or (3, H, W) and not empty, got {_described(image)}; "
            "list(batch) splits a batch"
        )
    values = image.detach().cpu()
    if values.is_floating_point():
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"a float tensor must be in [0, 1], got {values.min():g} to {values.max():g}")
        values = (values * 255).round().to(torch.uint8)
    if values.dtype != torch.uint8:
        raise ValueError(f"a tensor must be uint8 or float, got {_described(image)}")
    if values.ndim == 3:
        values = values.permute(1, 2, 0) if len(values) == 3 else values[0]
    return np.ascontiguousarray(values.numpy())


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
