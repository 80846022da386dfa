"""The network that hyper-parameters describe: SimpleCNN, or one named by its class path."""

from collections.abc import Mapping, MutableMapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from mnist_lightning.errors import ConfigError
from mnist_lightning.models.class_path import build, with_arguments
from mnist_lightning.models.cnn import SimpleCNN

DETERMINED = ("num_classes", "in_channels", "image_size", "in_features")  # arguments that the data determine


def make_network(options: MutableMapping[str, Any]) -> nn.Module:
    """Return the network that the hyper-parameters of a `Classifier` describe.

    The class path in `network` is completed by what the data determine. A class that cannot be used, and an argument
    out of range, is a ConfigError.
    """
    if options["network"] is not None:
        determined = {name: options[name] for name in DETERMINED if options[name] is not None}
        options["network"] = with_arguments(options["network"], determined)
        network = build(options["network"], nn.Module)
        check_shapes(network, options["network"]["class_path"], input_shape(options), options["num_classes"])
        return network
    try:
        network = SimpleCNN(**{name: options[name] for name in signature(SimpleCNN).parameters})
    except ValueError as error:
        raise ConfigError(f"model.{error}") from None
    return network.to(memory_format=torch.channels_last)


def input_shape(options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of one input, (channels, size, size) or (features,)."""
    if features := options["in_features"]:
        return (features,)
    return options["in_channels"], options["image_size"], options["image_size"]


def check_shapes(network: nn.Module, name: str, shape: Sequence[int], num_classes: int) -> None:
    """Check that a network, which messages call `name`, takes inputs of a shape and returns a logit for each class.

    Its mode and the random state are left as they are.
    """
    training = network.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            logits: Any = network.eval()(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name} cannot take inputs of shape {tuple(shape)}: {reason}") from error
    finally:
        network.train(training)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, num_classes):
        raise ConfigError(f"{name} returns {found} for two inputs, not logits (2, {num_classes})")
