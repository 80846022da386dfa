"""The optimizer that hyper-parameters describe, and the check of these."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Parameter
from torch.optim import LBFGS, Adam, Optimizer

from mnist_lightning.errors import ConfigError
from mnist_lightning.models.class_path import build, with_arguments
from mnist_lightning.training.optim.muon import Muon

FRACTIONS = ("warmup", "beta2", "label_smoothing", "ema_decay")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ConfigError if a hyper-parameter of a `Classifier` is out of range, or is set without any effect."""
    weights, classes = options["class_weights"], options["num_classes"]
    is_list = isinstance(weights, list | tuple) and len(weights) == classes
    if weights not in (None, "balanced") and not (is_list and all(0 < weight < math.inf for weight in weights)):
        raise ConfigError(f"model.class_weights must be balanced or {classes} numbers above 0, got {weights!s:.80}")
    fractions = ((name, 0 <= options[name] < 1, "in [0, 1)") for name in FRACTIONS)
    for name, is_valid, allowed in (
        ("lr", 0 < options["lr"] < math.inf, "above 0"),
        ("weight_decay", 0 <= options["weight_decay"] < math.inf, "at least 0"),
        ("plateau_factor", 0 < options["plateau_factor"] < 1, "in (0, 1)"),
        ("plateau_patience", options["plateau_patience"] >= 0, "at least 0"),
        *fractions,
    ):
        if not is_valid:
            raise ConfigError(f"model.{name} must be {allowed}, got {options[name]}")
    of_simple_cnn, short_name = options["network"] is None, isinstance(options["optimizer"], str)
    for name, default, has_effect in (
        ("conv_dropout", 0.25, of_simple_cnn),
        ("fc_dropout", 0.5, of_simple_cnn),
        ("beta2", 0.999, short_name),
        ("weight_decay", 0.0, short_name),
        ("warmup", 0.0, options["lr_scheduler"] in ("linear", "cosine")),
        ("plateau_factor", 0.5, options["lr_scheduler"] == "plateau"),
        ("plateau_patience", 2, options["lr_scheduler"] == "plateau"),
    ):
        if not has_effect and options[name] != default:
            raise ConfigError(f"model.{name} has no effect with this network, optimizer or schedule; leave it out")


def make_optimizer(parameters: Iterable[Parameter], options: Mapping[str, Any], *, fused: bool) -> Optimizer:
    """Return the optimizer of a network's parameters, in its order, without those that are frozen.

    With `fused`, Adam and Muon update all parameters in one kernel.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not parameters:
        raise ConfigError("there is nothing to train: no parameter of the model requires a gradient")
    if not isinstance(options["optimizer"], str):
        optimizer = build(with_arguments(options["optimizer"], {"lr": options["lr"]}), Optimizer, parameters)
        if isinstance(optimizer, LBFGS):  # it flattens gradients by `view`, which channels_last does not allow
            for parameter in parameters:
                parameter.data = parameter.data.contiguous()
        return optimizer
    adam: dict[str, Any] = {
        "lr": options["lr"],
        "betas": (0.9, options["beta2"]),
        "weight_decay": options["weight_decay"],
        "decoupled_weight_decay": True,
        "fused": fused,
    }
    if options["optimizer"] == "adam":
        return Adam(parameters, **adam)
    matrices = [parameter for parameter in parameters if parameter.ndim > 1][1:-1]
    others = [parameter for parameter in parameters if all(parameter is not matrix for matrix in matrices)]
    return Muon(matrices, others, **adam)
