"""What a sweep's config says: the study, the training that each trial is, and the options to search over."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_lightning.cli.config import guard_configs, read_config
from mnist_lightning.cli.parser import OptionParser, place_of
from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError

SECTIONS = ("study", "pruner", "fit", "space")
RANGE_KEYS = ("low", "high", "step", "log")
# A trial is an ordinary run on one device, in the sweep's folder, and never looks at the test images.
FIXED = ("--test_after_fit=false", "--trainer.devices=1", "--trainer.num_nodes=1")


@dataclass(frozen=True)
class Study:
    """What is sought, and how long.

    Args:
        name: Name of the study.
        folder: Where its files go; null means `sweeps/NAME`.
        trials: Trials to make, at least 1; one that was interrupted is made again and counts once.
        metric: Score on the validation images to make high (`val_acc`) or low (`val_loss`): the best of a trial's
            epochs.
        seed: Seed of the search, in [0, 2**32). That of the training is `seed_everything`.
        max_minutes: Minutes after which a command begins no further trial, above 0; null sets no limit.
    """

    name: str
    folder: Path | None = None
    trials: int = 20
    metric: Literal["val_acc", "val_loss"] = "val_acc"
    seed: int = 0
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"study.trials must be at least 1, got {self.trials}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"study.seed must be in [0, 2**32), got {self.seed}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ConfigError(f"study.max_minutes must be above 0, got {self.max_minutes}")
        if Path(self.name).name != self.name:
            raise ConfigError(f"study.name must be a name without slashes, got {self.name!r}")


@dataclass(frozen=True)
class Pruner:
    """When a trial is given up: after an epoch in which it is worse than the median of the trials before.

    Args:
        enabled: Whether any is.
        startup_trials: Trials that must have ended before the first is given up, at least 0.
        warmup_epochs: Epochs that every trial gets, at least 0.
    """

    enabled: bool = True
    startup_trials: int = 5
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        for name in ("startup_trials", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"pruner.{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        study: What is sought, and how long.
        pruner: When a trial is given up.
        fit: The options that all trials share, by dotted name; `config` is a config file of `fit`.
        space: What each searched option is drawn from, by dotted name.
    """

    study: Study
    pruner: Pruner
    fit: Mapping[str, Any]
    space: Mapping[str, BaseDistribution]

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.study.folder or Path("sweeps", self.study.name)

    def best(self, scores: Iterable[float]) -> float:
        """Return the best of some scores."""
        return max(scores) if self.study.metric == "val_acc" else min(scores)

    def command_line(self, params: Mapping[str, Any]) -> list[str]:
        """Return the command that trains with these values of the searched options."""
        options = {name: value for name, value in self.fit.items() if name not in params} | dict(params)
        args = [f"--{name}={as_argument(value)}" for name, value in options.items()]
        return ["fit", *args, *FIXED, f"--trainer.default_root_dir={self.folder}"]

    def corners(self) -> list[dict[str, Any]]:
        """Return values of the searched options that between them show each choice and both ends of each range."""
        values = {name: _ends(distribution) for name, distribution in self.space.items()}
        count = max(map(len, values.values()))
        return [{name: ends[corner % len(ends)] for name, ends in values.items()} for corner in range(count)]


def read_plan(path: Path) -> Plan:
    """Return what a sweep's config says.

    Raises:
        ConfigError: If it is no config, or a key or a range in it is wrong; what the parser finds wrong exits with 2.
    """
    guard_configs()
    args = ["--config", str(path)]
    content = read_config(path)
    for key in content:
        if key not in SECTIONS:
            raise ConfigError(f"unknown key {key}{place_of(key, args)}{did_you_mean(key, SECTIONS)}")
    for section, kind in (("study", Study), ("pruner", Pruner)):
        known = tuple(field.name for field in fields(kind))
        entries = content.setdefault(section, {})
        if not isinstance(entries, dict):
            raise ConfigError(f"{section}{place_of(section, args)} holds {', '.join(known)}, got {entries!r:.80}")
        for key in entries:
            if key not in known:
                raise ConfigError(
                    f"unknown key {section}.{key}{place_of(f'{section}.{key}', args)}{did_you_mean(key, known)}"
                )
    fit, space = content.pop("fit", None) or {}, content.pop("space", None)
    if not isinstance(fit, dict) or not isinstance(space, dict) or not space:
        raise ConfigError(
            f"{path} needs options to search under `space`, such as `model.lr: {{low: 1e-4, high: 1e-2}}`"
        )
    for name in (*fit, *space):
        if name in ("ckpt_path", "test_after_fit", "trainer.default_root_dir", "trainer.devices", "trainer.num_nodes"):
            raise ConfigError(
                f"{name} in {path} is not for a sweep to set: a trial trains from the start, on one device"
            )
    if "name" not in content["study"]:
        raise ConfigError(f"{path} needs a name for the study, such as `study: {{name: first}}`")
    OptionParser.command_line = args
    parser = OptionParser(prog="python -m mnist_lightning sweep")
    parser.add_class_arguments(Study, "study")
    parser.add_class_arguments(Pruner, "pruner")
    options = parser.instantiate_classes(parser.parse_object(content))
    return Plan(options.study, options.pruner, fit, {name: _distribution(name, space[name], path) for name in space})


def as_argument(value: Any) -> str:
    """Return a value as it stands on a command line.

    >>> as_argument("cosine"), as_argument(True), as_argument(None), as_argument(0.001)
    ('cosine', 'true', 'null', '0.001')
    """
    return value if isinstance(value, str) else json.dumps(value)


def _distribution(name: str, entry: Any, path: Path) -> BaseDistribution:
    """Return what an entry such as `{low: 1, high: 8, step: 1}` or `{choices: [32, 64]}` stands for."""
    place = f"space.{name} in {path}"
    if not isinstance(entry, dict) or not entry:
        raise ConfigError(f"{place} must be a range {{low: …, high: …}} or {{choices: […]}}, got {entry!r:.80}")
    known = ("choices",) if "choices" in entry else RANGE_KEYS
    for key in entry:
        if key not in known:
            raise ConfigError(f"{place}: unknown key {key}{did_you_mean(str(key), (*RANGE_KEYS, 'choices'))}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Optuna would change a range that its step does not divide
        try:
            if "choices" in entry:
                return CategoricalDistribution(entry["choices"])
            bounds = [entry[key] for key in RANGE_KEYS[:3] if key in entry]
            if {"low", "high"} - entry.keys() or not all(type(bound) in (int, float) for bound in bounds):
                raise ConfigError(f"{place} needs numbers `low` and `high`, got {entry!r:.80}")
            whole = all(isinstance(bound, int) for bound in bounds)
            if not all(abs(bound) < float("inf") for bound in bounds):
                raise ConfigError(f"{place} needs finite numbers, got {entry!r:.80}")
            return (IntDistribution if whole else FloatDistribution)(**entry)
        except (ValueError, TypeError, UserWarning) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{place}: {error}") from error


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]
