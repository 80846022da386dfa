"""Lightning's argument parser with errors of a line or two: what is wrong, where, and the nearest valid name."""

import difflib
import itertools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from mnist_lightning.console import tell

LONGEST_LINE = 300  # characters of a message
GROUP_OPTIONS = ("--trainer", "--model", "--data", "--early_stopping", "--checkpoint")


class OptionParser(LightningArgumentParser):
    """Parse options and config files; a mistake ends the program with exit code 2 and says what to do."""

    command_line: ClassVar[Sequence[str]] = ()  # what is being parsed, for the messages of every subcommand's parser

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print a short message and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        names = {option for action in parser._actions for option in action.option_strings}
        for choices in (action.choices for action in parser._actions if isinstance(action.choices, dict)):
            names |= {option for arg in self.command_line[:1] for option in choices[arg]._option_string_actions}
        tell(f"error: {short_message(message, self.command_line, names)}")
        sys.exit(2)


def short_message(message: str, args: Sequence[str], names: Iterable[str]) -> str:
    """Return jsonargparse's message in a line or two.

    Args:
        message: What jsonargparse says.
        args: The command line, to find the config files in.
        names: Every option there is, such as `--model.lr`.
    """
    if match := re.search(r"does not accept option '(.+?)'|Option '(.+?)' is not accepted", message):
        key = match[1] or match[2]
        if match[2]:
            return f"options and --config come after the subcommand: fit --config FILE (found {key} before it)"
        return f"unknown option {key}{place_of(key, args)}{_nearest(f'--{key}', names)}"
    if match := re.search(r"unrecognized arguments: (.+)", message):
        option = match[1].split()[0].split("=")[0]
        return f"unknown option {option}{_nearest(option, names)}"
    if match := re.match(r'Parser key "config":\s*(.+)', message):
        return match[1]
    if match := re.match(r'Parser key "(.+?)":(.+)', message, re.DOTALL):
        key, reason = match[1], match[2]
        expected = re.findall(r"Expected an? (?:<class ')?(typing\.Literal\[.*?\]|[^'>\n]+)", reason)
        given = re.search(r"(?:Got value|Given value): (.+)", reason)
        if expected and given:
            allowed = " or ".join(dict.fromkeys(name.strip(". ").removeprefix("typing.Literal") for name in expected))
            typed = any(arg.split("=")[0] == f"--{key}" for arg in args)
            place = "" if typed else place_of(key, args)
            return f"{key}{place} must be {allowed}, got {shortened(given[1])}"
    return "\n".join(map(shortened, message.strip().splitlines()[:5]))


def shortened(line: str) -> str:
    """Return a line without the end that no screen has room for."""
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} …"


def _nearest(option: str, names: Iterable[str]) -> str:
    matches = difflib.get_close_matches(option, names, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else "; --help lists the options"


def place_of(key: str, args: Sequence[str]) -> str:
    """Return ` in FILE, line N` when a config file on the command line sets the key."""
    for file in reversed(config_files(args)):
        try:
            node = yaml.compose(Path(file).read_text())
        except (OSError, UnicodeError, yaml.YAMLError):
            continue
        line = None
        for part in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            line, node = next(((k.start_mark.line + 1, v) for k, v in pairs if k.value == part), (None, None))
        if line:
            return f" in {file}, line {line}"
    return ""


def config_files(args: Sequence[str]) -> list[str]:
    """Return the config files that a command line names, those of single groups (`--model FILE`) included."""
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    whole = [file for option, file in pairs if option in ("-c", "--config")]
    return whole + [file for option, file in pairs if option in GROUP_OPTIONS and os.path.isfile(file)]
