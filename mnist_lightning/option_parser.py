"""Lightning's argument parser with errors of a line or two: what is wrong, where, and the nearest valid name."""

import difflib
import itertools
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser


class OptionParser(LightningArgumentParser):
    """Parse options and config files; a mistake ends the program with exit code 2 and says what to do."""

    command_line: ClassVar[Sequence[str]] = ()  # what is being parsed, for the messages of every subcommand's parser

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print a short message and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        names = {option for action in parser._actions for option in action.option_strings}
        for choices in (action.choices for action in parser._actions if isinstance(action.choices, dict)):
            names |= {option for arg in self.command_line[:1] for option in choices[arg]._option_string_actions}
        print(f"error: {short_message(message, self.command_line, names)}", file=sys.stderr)
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
        return f"unknown option {key}{_place(key, args)}{_nearest(f'--{key}', names)}"
    if match := re.search(r"unrecognized arguments: (.+)", message):
        option = match[1].split()[0].split("=")[0]
        return f"unknown option {option}{_nearest(option, names)}"
    if message.startswith("Problems parsing config"):
        return next(filter(None, map(_yaml_fault, config_files(args))), message.splitlines()[0])
    if match := re.match(r'Parser key "config":\s*(.+)', message):
        return match[1]
    if match := re.match(r'Parser key "(.+?)":(.+)', message, re.DOTALL):
        key, reason = match[1], match[2]
        expected = re.findall(r"Expected an? (?:<class ')?(typing\.Literal\[.*?\]|[^'>\n]+)", reason)
        given = re.search(r"(?:Got value|Given value): (.+)", reason)
        if expected and given:
            allowed = " or ".join(dict.fromkeys(name.strip(". ").removeprefix("typing.Literal") for name in expected))
            typed = any(arg.split("=")[0] == f"--{key}" for arg in args)
            place = "" if typed else _place(key, args)
            return f"{key}{place} must be {allowed}, got {given[1]}"
    return "\n".join(message.strip().splitlines()[:5])


def _nearest(option: str, names: Iterable[str]) -> str:
    matches = difflib.get_close_matches(option, names, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else "; --help lists the options"


def _place(key: str, args: Sequence[str]) -> str:
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
    """Return the config files that a command line names."""
    files = [after for before, after in itertools.pairwise(args) if before in ("-c", "--config")]
    return files + [arg.removeprefix("--config=") for arg in args if arg.startswith("--config=")]


def _yaml_fault(file: str) -> str | None:
    try:
        yaml.compose(Path(file).read_text())
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{file}{line} is not YAML: {error.problem}"
    except (UnicodeError, yaml.YAMLError) as error:
        return f"{file} is not YAML: {str(error).splitlines()[0]}"
    return None
