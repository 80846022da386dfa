"""The network that hyper-parameters describe: SimpleCNN, or one named by its class path."""

from collections.abc import MutableMapping
from inspect import signature
from typing import Any

import torch
from torch import nn

from mnist_lightning.errors import ConfigError
from mnist_lightning.models.class_path import build, with_arguments
from mnist_lightning.models.cnn import SimpleCNN

DETERMINED = ("num_classes", "in_channels", "image_size", "in_features")  # arguments that the data determine


def make_network(options: MutableMapping[str, Any]) -> nn.Module:
    """Return the network of a `Classifier`.

    Args:
        options: Its hyper-parameters. The class path in `network` is completed by what the data determine.

    Raises:
        ConfigError: If the class cannot be used, or an argument is out of range.
    """
    if options["network"] is not None:
        determined = {name: options[name] for name in DETERMINED if options[name] is not None}
        options["network"] = with_arguments(options["network"], determined)
        return build(options["network"], nn.Module)
    try:
        network = SimpleCNN(**{name: options[name] for name in signature(SimpleCNN).parameters})
    except ValueError as error:
        raise ConfigError(f"model.{error}") from None
    return network.to(memory_format=torch.channels_last)
