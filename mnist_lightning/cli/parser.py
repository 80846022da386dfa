"""The parser of `fit`, `validate` and `test`: Lightning's, with short error messages and further checks of values.

A message names what is wrong, where (file and line, or the option), and the nearest valid name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from torchmetrics import Metric

from mnist_lightning.cli.class_errors import class_message, wrong_value
from mnist_lightning.cli.class_groups import flat_arguments, join_groups
from mnist_lightning.cli.help_texts import CKPT_PATH_HELP, DESCRIPTIONS, EXAMPLES
from mnist_lightning.cli.safe_yaml import config_files, place_of, read_config
from mnist_lightning.console import did_you_mean, exit_with_usage_error, shortened, unknown_option
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metric_collection import DETERMINED as METRIC_DETERMINED
from mnist_lightning.models.network import DETERMINED
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.lightning_patches import option_names, option_parsers, set_help

# Lower bounds that Lightning does not check: -1 accumulated batches, for example, would maximise the loss.
SMALLEST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "max_epochs": -1}
# Although they have a default: max_steps or max_time ends the run; val_check_interval counts batches over all epochs.
NULLABLE = {"trainer.max_epochs", "trainer.check_val_every_n_epoch", "trainer.precision"}


class OptionParser(LightningArgumentParser):
    """Parse options and config files; a wrong option ends the program with exit code 2 and a short message."""

    command_line: ClassVar[Sequence[str]] = ()  # what is parsed, for the messages of the subcommands' parsers
    class_paths: Mapping[str, str] = MappingProxyType({})  # of the groups that a config has to name a class for

    def parse_command(self, args: list[str]) -> Namespace:
        """Parse the command line of a subcommand; mistakes are ConfigErrors, or end the program with exit code 2."""
        OptionParser.command_line = args
        for file in config_files(args):
            read_config(file)
        try:
            config = self.parse_args(flat_arguments(args))
        except (UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"a file on the command line cannot be read as a config: {error}") from error
        check_options(config[args[0]], option_parsers(self, args[0])[-1].get_defaults(), args)
        return config

    def add_class_arguments(self, theclass: type, nested_key: str | None = None, **kwargs: Any) -> list[str]:
        """Add options for the parameters of a class; those that the data determine are not options."""
        if issubclass(theclass, Classifier):
            kwargs["skip"] = {f"network.init_args.{name}" for name in DETERMINED}
        elif issubclass(theclass, Metric):
            kwargs["skip"] = {*kwargs.get("skip", ()), *METRIC_DETERMINED}
        names: list[str] = super().add_class_arguments(theclass, nested_key, **kwargs)
        return names

    def dump(self, cfg: Namespace, **kwargs: Any) -> str:
        """Return options as YAML, in which groups name their classes unless these are the defaults."""
        text: str = super().dump(cfg, **kwargs)
        if not self.class_paths:
            return text
        content = yaml.safe_load(text)
        if command := cfg.get("subcommand"):
            content[command] = join_groups(content[command], self.class_paths)
        else:
            content = join_groups(content, self.class_paths)
        return yaml.safe_dump(content, sort_keys=False)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print a short message and exit with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        names = option_names(parser, next(iter(self.command_line), ""))
        exit_with_usage_error(short_message(message, self.command_line, names))


def describe(parser: LightningArgumentParser, command: str) -> None:
    """Add texts to the parser of a subcommand; switch off Lightning's own table of results."""
    if command != "fit":
        parser.set_defaults({"verbose": False})
    parser.description = DESCRIPTIONS[command]
    parser.epilog = f"example: python -m mnist_lightning {EXAMPLES[command]}"
    set_help(parser, "ckpt_path", CKPT_PATH_HELP)


def short_message(message: str, args: Sequence[str], names: Iterable[str]) -> str:
    """Return an error message of jsonargparse, shortened to a line or two; `names` are all valid options."""
    if match := re.search(r"does not accept option '(.+?)'", message):
        nearest = did_you_mean(f"--{match[1]}", names, "; --help lists the options")
        return f"unknown option {match[1]}{place_of(match[1], args)}{nearest}"
    if unknown := unknown_option(message, names):
        return unknown
    if about_class := class_message(message, args):
        return about_class
    if (match := re.match(r'Parser key "(.+?)":(.+)', message, re.DOTALL)) and (wrong := wrong_value(match[2])):
        return f"{match[1]}{place_of(match[1], args)} {wrong}"
    return "\n".join(map(shortened, message.strip().splitlines()[:5]))


def check_options(options: Namespace, defaults: Namespace, args: Sequence[str]) -> None:
    """Raise a ConfigError if an option that needs a value is null, or a value is out of range."""
    for key, default in defaults.items():
        group = key.partition(".")[0]
        if options[group] is None and default is not None:
            raise ConfigError(f"{group}{place_of(group, args)} may not be null; without it, the defaults apply")
        if default is not None and options.get(key) is None and key not in NULLABLE and ".init_args." not in key:
            reason = f"; {default} is the default" if default != "" else ""
            raise ConfigError(f"{key}{place_of(key, args)} may not be null{reason}")
    for name, smallest in SMALLEST.items():
        value = options.trainer[name]
        if value is not None and not smallest <= value < 2**31:
            key = f"trainer.{name}"
            raise ConfigError(f"{key}{place_of(key, args)} must be in [{smallest}, 2**31), got {value}")
    if not 0 <= options.seed_everything < 2**32:  # the range of NumPy's seeds
        raise ConfigError(f"seed_everything must be in [0, 2**32), got {options.seed_everything}")
    if "://" in str(options.trainer.default_root_dir):
        raise ConfigError(f"trainer.default_root_dir must be a local folder, got {options.trainer.default_root_dir}")
