"""A sweep's config: the study, the pruner, the options that all trials share and the options to search over."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_lightning.cli.parser import OptionParser
from mnist_lightning.cli.safe_yaml import guard_configs, place_of, read_config
from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError, require_at_least

# A trial is an ordinary run on one device, in the sweep's folder, and never reads the test images.
FIXED = ("--test_after_fit=false", "--trainer.devices=1", "--trainer.num_nodes=1")
RESERVED = ("ckpt_path", "test_after_fit", "trainer.default_root_dir", "trainer.devices", "trainer.num_nodes")


@dataclass(frozen=True)
class Study:
    """What to optimize, and for how long.

    Args:
        name: Name of the study.
        folder: Folder of all its files; null means `sweeps/NAME`.
        trials: Number of trials, at least 1. An interrupted trial is run again and counts once.
        metric: Validation metric to maximize (`val_acc`) or minimize (`val_loss`). A trial's score is its best one.
        seed: Seed of the search, in [0, 2**32). The seed of training is `seed_everything`.
        max_minutes: Minutes after which a command starts no further trial, above 0; null sets no limit.
    """

    name: str
    folder: Path | None = None
    trials: int = 20
    metric: Literal["val_acc", "val_loss"] = "val_acc"
    seed: int = 0
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        require_at_least(1, "study.trials", self.trials)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"study.seed must be in [0, 2**32), got {self.seed}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ConfigError(f"study.max_minutes must be above 0, got {self.max_minutes}")
        if Path(self.name).name != self.name:
            raise ConfigError(f"study.name must be a name without slashes, got {self.name!r}")


@dataclass(frozen=True)
class Pruner:
    """When to stop a trial early: after a validation in which it scores below the median of the earlier trials.

    Args:
        enabled: Whether to prune at all.
        startup_trials: Trials that must have finished before the first is pruned, at least 0.
        warmup_epochs: Validations, usually one an epoch, before which no trial is pruned, at least 0.
    """

    enabled: bool = True
    startup_trials: int = 5
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        require_at_least(0, "pruner.startup_trials", self.startup_trials)
        require_at_least(0, "pruner.warmup_epochs", self.warmup_epochs)


@dataclass(frozen=True)
class SweepConfig:
    """The four sections of a sweep's config.

    Args:
        study: What to optimize, and for how long.
        pruner: When to stop a trial early.
        fit: The options that all trials share, by dotted name; `config` is a config file of `fit`.
        space: The distribution of each searched option, by dotted name.
    """

    study: Study
    pruner: Pruner
    fit: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]

    @property
    def folder(self) -> Path:
        """Folder of all the sweep's files."""
        return self.study.folder or Path("sweeps", self.study.name)

    def best(self, scores: Iterable[float]) -> float:
        """Return the best of some scores."""
        return max(scores) if self.study.metric == "val_acc" else min(scores)

    def command_line(self, params: Mapping[str, Any]) -> list[str]:
        """Return the `fit` command that trains with these values of the searched options."""
        options = {name: value for name, value in self.fit.items() if name not in params} | dict(params)
        args = [f"--{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in options.items()]
        return ["fit", *args, *FIXED, f"--trainer.default_root_dir={self.folder}"]

    def corners(self) -> list[dict[str, Any]]:
        """Return values of the searched options that together cover each choice and both ends of each range."""
        ends = {name: _ends(distribution) for name, distribution in self.space.items()}
        count = max(map(len, ends.values()))
        return [{name: values[corner % len(values)] for name, values in ends.items()} for corner in range(count)]


def read_sweep(path: Path) -> SweepConfig:
    """Return the content of a sweep's config.

    Raises:
        ConfigError: If it cannot be read, or a key or a range is invalid. A value of the wrong type exits with 2.
    """
    guard_configs()
    content = read_config(path)
    _check_keys(content, ("study", "pruner", "fit", "space"), "", path)
    for section, cls in (("study", Study), ("pruner", Pruner)):
        _check_keys(content.setdefault(section, {}), [field.name for field in fields(cls)], section, path)
    fit, space = content.pop("fit", None) or {}, content.pop("space", None)
    if not isinstance(fit, dict) or not isinstance(space, dict) or not space:
        raise ConfigError(
            f"{path} needs options to search under `space`, such as `model.lr: {{low: 1e-4, high: 1e-2}}`"
        )
    if "name" not in content["study"]:
        raise ConfigError(f"{path} needs a name for the study, such as `study: {{name: first}}`")
    for name in {*fit, *space}.intersection(RESERVED):
        raise ConfigError(f"{name} in {path} cannot be set: a trial trains from the start, on one device")
    OptionParser.command_line = ["--config", str(path)]  # for the line numbers in its messages
    parser = OptionParser(prog="python -m mnist_lightning sweep")
    parser.add_class_arguments(Study, "study")
    parser.add_class_arguments(Pruner, "pruner")
    options = parser.instantiate_classes(parser.parse_object(content))
    distributions = {name: _distribution(f"space.{name}", entry, path) for name, entry in space.items()}
    return SweepConfig(options.study, options.pruner, fit, distributions)


def _distribution(name: str, entry: Any, path: Path) -> BaseDistribution:
    """Return the distribution that an entry such as `{low: 1, high: 8}` or `{choices: [32, 64]}` describes."""
    if not isinstance(entry, dict) or ("choices" not in entry and {"low", "high"} - entry.keys()):
        raise ConfigError(f"{name} in {path} must be {{low: …, high: …}} or {{choices: […]}}, got {entry!r:.80}")
    _check_keys(entry, ("choices",) if "choices" in entry else ("low", "high", "step", "log"), name, path)
    numbers = [value for key, value in entry.items() if key not in ("choices", "log")]
    if not all(type(number) in (int, float) and abs(number) < float("inf") for number in numbers):
        raise ConfigError(f"{name} in {path} must have finite numbers, got {entry!r:.80}")
    range_class = IntDistribution if all(isinstance(number, int) for number in numbers) else FloatDistribution
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Optuna would change a range that its step does not divide
        try:
            return (CategoricalDistribution if "choices" in entry else range_class)(**entry)
        except (ValueError, TypeError, UserWarning) as error:
            raise ConfigError(f"{name} in {path}: {error}") from error


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _check_keys(entries: Any, known: Iterable[str], section: str, path: Path) -> None:
    args, known = ["--config", str(path)], tuple(known)
    if not isinstance(entries, dict):
        raise ConfigError(
            f"{section}{place_of(section, args)} must have keys ({', '.join(known)}), got {entries!r:.80}"
        )
    for key in entries:
        if key not in known:
            name = f"{section}.{key}" if section else key
            raise ConfigError(
                f"unknown key {name}{place_of(name, args) or f' in {path}'}{did_you_mean(str(key), known)}"
            )
