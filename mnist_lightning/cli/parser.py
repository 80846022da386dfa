"""The parser of `fit`, `validate` and `test`: Lightning's, with error messages of a line or two.

A message names what is wrong, where (file and line, or the option), and the nearest valid name.
"""

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from mnist_lightning.console import did_you_mean, exit_with_usage_error, shortened, unknown_option

GROUP_OPTIONS = ("--trainer", "--model", "--data", "--early_stopping", "--checkpoint")


class OptionParser(LightningArgumentParser):
    """Parse options and config files; a wrong option ends the program with exit code 2 and a short message."""

    command_line: ClassVar[Sequence[str]] = ()  # what is parsed, for the messages of the subcommands' parsers

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print a short message and exit with code 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        names = {option for action in parser._actions for option in action.option_strings}
        for choices in (action.choices for action in parser._actions if isinstance(action.choices, dict)):
            names |= {option for arg in self.command_line[:1] for option in choices[arg]._option_string_actions}
        exit_with_usage_error(short_message(message, self.command_line, names))


def short_message(message: str, args: Sequence[str], names: Iterable[str]) -> str:
    """Return an error message of jsonargparse, shortened to a line or two.

    Args:
        message: The error message of jsonargparse.
        args: The command line, which names the config files.
        names: All valid options, such as `--model.lr`.
    """
    if match := re.search(r"does not accept option '(.+?)'|Option '(.+?)' is not accepted", message):
        key = match[1] or match[2]
        if match[2]:
            return f"options and --config come after the subcommand: fit --config FILE (found {key} before it)"
        nearest = did_you_mean(f"--{key}", names, "; --help lists the options")
        return f"unknown option {key}{place_of(key, args)}{nearest}"
    if unknown := unknown_option(message, names):
        return unknown
    if match := re.match(r'Parser key "config":\s*(.+)', message):
        return match[1]
    if match := re.match(r'Parser key "(.+?)":(.+)', message, re.DOTALL):
        key, reason = match[1], match[2]
        expected = re.findall(r"Expected an? (?:<class ')?(typing\.Literal\[.*?\]|[^'>\n]+)", reason)
        given = re.search(r"(?:Got value|Given value): (.+)", reason)
        if expected and given:
            allowed = " or ".join(dict.fromkeys(name.strip(". ").removeprefix("typing.Literal") for name in expected))
            on_command_line = any(arg.split("=")[0] == f"--{key}" for arg in args)
            place = "" if on_command_line else place_of(key, args)
            return f"{key}{place} must be {allowed}, got {shortened(given[1])}"
    return "\n".join(map(shortened, message.strip().splitlines()[:5]))


def place_of(key: str, args: Sequence[str]) -> str:
    """Return ` in FILE, line N` if a config file on the command line sets a key, else ""."""
    for file in reversed(config_files(args)):
        try:
            node = yaml.compose(Path(file).read_text())
        except (OSError, UnicodeError, yaml.YAMLError):
            continue
        line = None
        for name in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            line, node = next(((k.start_mark.line + 1, v) for k, v in pairs if k.value == name), (None, None))
        if line:
            return f" in {file}, line {line}"
    return ""


def config_files(args: Sequence[str]) -> list[str]:
    """Return the config files that a command line names, those of single groups (`--model FILE`) included."""
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    whole = [file for option, file in pairs if option in ("-c", "--config")]
    return whole + [file for option, file in pairs if option in GROUP_OPTIONS and os.path.isfile(file)]
