"""A sweep's config: the study, the pruner, the options that all trials share and the options to search over."""

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner

from mnist_lightning.cli.parser import OptionParser
from mnist_lightning.cli.safe_yaml import guard_configs, place_of, read_config
from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError, require_at_least
from mnist_lightning.training.monitor import Mode, mode_of

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

# A trial is an ordinary run in the sweep's folder, and never reads the test images.
FIXED = {"ckpt_path": None, "test_after_fit": False}


@dataclass(frozen=True)
class Study:
    """What to optimize, and for how long."""

    name: str
    folder: Path | None = None  # of all its files; None means sweeps/NAME
    trials: int = 20
    metric: str = "val_acc"  # any that a validation logs; a trial's score is its best one
    mode: Mode | None = None  # whether it is minimized or maximized; None follows the metric's name
    seed: int = 0  # of the search; the seed of training is `seed_everything`
    max_minutes: float | None = None  # after which a command starts no further trial

    def __post_init__(self) -> None:
        require_at_least(1, "study.trials", self.trials)
        require_at_least(0, "study.seed", self.seed)
        if Path(self.name).name != self.name:
            raise ConfigError(f"study.name must be a name without slashes, got {self.name!r}")
        if self.metric.startswith(("train", "test")):
            raise ConfigError(f"study.metric must be of the validation, never of the test set, got {self.metric}")
        object.__setattr__(self, "mode", mode_of(self.metric, self.mode, "study.mode"))


@dataclass(frozen=True)
class SweepConfig:
    """The four sections of a sweep's config."""

    study: Study
    pruner: BasePruner
    fit: Mapping[str, Any]  # the options that all trials share, by dotted name
    space: Mapping[str, Distribution]  # the searched options, by dotted name

    @property
    def folder(self) -> Path:
        """Folder of all the sweep's files."""
        return self.study.folder or Path("sweeps", self.study.name)

    def best(self, scores: Iterable[float]) -> float:
        """Return the best of some scores."""
        return max(scores) if self.study.mode == "max" else min(scores)

    def command_line(self, params: Mapping[str, Any]) -> list[str]:
        """Return the `fit` command that trains with these values of the searched options."""
        options = {"trainer.devices": 1, **self.fit, **params, **FIXED, "trainer.default_root_dir": str(self.folder)}
        config = [f"--config={options.pop('config')}"] if "config" in options else []  # first: the others override it
        monitor = f"--checkpoint.monitor={self.study.metric}", f"--checkpoint.mode={self.study.mode}"
        return [
            "fit",
            *monitor,
            *config,
            *(f"--{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in options.items()),
        ]


def read_sweep(path: Path) -> SweepConfig:
    """Return the content of a sweep's config; an invalid key or range is a ConfigError, a wrong type exits with 2."""
    guard_configs()
    content = read_config(path)
    _check_keys(content, ("study", "pruner", "fit", "space"), "", path)
    _check_keys(content.setdefault("study", {}), signature(Study).parameters, "study", path)
    fit, space, pruner = content.get("fit") or {}, content.get("space"), content.get("pruner", {})
    if not isinstance(fit, dict) or not isinstance(space, dict) or not space:
        raise ConfigError(
            f"{path} needs options to search under `space`, such as `model.lr: {{low: 1e-4, high: 0.01}}`"
        )
    for name in {*FIXED, "trainer.default_root_dir"}.intersection({*fit, *space}):
        raise ConfigError(f"{name} in {path} cannot be set: a trial trains from the start, in the sweep's folder")
    OptionParser.command_line = ["--config", str(path)]  # for the line numbers in its messages
    parser = OptionParser(prog="python -m mnist_lightning sweep")
    parser.add_class_arguments(Study, "study")
    study = parser.instantiate_classes(parser.parse_object({"study": content["study"]})).study
    distributions = {name: _distribution(f"space.{name} in {path}", entry) for name, entry in space.items()}
    try:
        return SweepConfig(study, NopPruner() if pruner is None else MedianPruner(**pruner), fit, distributions)
    except (TypeError, ValueError) as error:  # Optuna's, which names the argument
        raise ConfigError(f"pruner in {path}: {error}") from error


def _distribution(place: str, entry: Any) -> Distribution:
    """Return the distribution that an entry such as `{low: 1, high: 8}` or `{choices: [32, 64]}` describes."""
    if not isinstance(entry, dict) or ("choices" not in entry and {"low", "high"} - entry.keys()):
        raise ConfigError(f"{place} must be {{low: …, high: …}} or {{choices: […]}}, got {entry!r:.80}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Optuna would change a range that its step does not divide
        try:
            if "choices" in entry:
                return CategoricalDistribution(**entry)
            is_whole = all(isinstance(entry.get(key, 0), int) for key in ("low", "high", "step"))
            return IntDistribution(**entry) if is_whole else FloatDistribution(**entry)
        except (ValueError, TypeError, UserWarning) as error:
            raise ConfigError(f"{place}: {error}") from error


def _check_keys(entries: Any, known: Iterable[str], section: str, path: Path) -> None:
    if not isinstance(entries, dict):
        raise ConfigError(f"{section} in {path} must have keys ({', '.join(known)}), got {entries!r:.80}")
    for key in entries:
        if key not in known:
            name = f"{section}.{key}" if section else key
            raise ConfigError(f"unknown key {name}{place_of(name, ['--config', str(path)])}{did_you_mean(key, known)}")
