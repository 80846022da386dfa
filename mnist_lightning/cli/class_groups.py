"""Groups of options that name a class, in LightningCLI's forms, as flat options of that class.

`--data mine.MyData --data.init_args.folder x` and `data: {class_path: mine.MyData, init_args: {folder: x}}` become
`--data.folder x`; `classes.py` takes the class from them.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import yaml

from mnist_lightning.cli.safe_yaml import CONFIG_OPTIONS, FAULTS, parse_yaml, read_config, values_of
from mnist_lightning.console import shortened
from mnist_lightning.errors import ConfigError

GROUPS = ("data", "model")
NESTED = ("init_args", "dict_kwargs")


def split_group(name: str, value: Any) -> tuple[str | None, dict[str, Any]]:
    """Return the class path, or None, and the flat options of a group, from what a config or the command line gives it.

    That is a class path, options, or both; any other form is a ConfigError.

    >>> split_group("data", {"class_path": "mine.MyData", "init_args": {"folder": "x"}})
    ('mine.MyData', {'folder': 'x'})
    """
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, dict | None):
        raise ConfigError(f"{name} must contain options or name a class, got {value!r:.80}")
    options = dict(value or {})
    path = options.pop("class_path", None)
    if not isinstance(path, str | None):
        raise ConfigError(f"{name}.class_path must name a class, got {path!r:.80}")
    for key in NESTED:
        nested = options.pop(key, None) or {}
        if not isinstance(nested, dict):
            raise ConfigError(f"{name}.{key} must contain options, got {nested!r:.80}")
        options |= nested
    return path, options


def join_groups(options: Mapping[str, Any], class_paths: Mapping[str, str]) -> dict[str, Any]:
    """Return a config in which groups name the classes with these paths; the opposite of `flat_config`."""
    return {
        name: {"class_path": class_paths[name], "init_args": value or {}} if name in class_paths else value
        for name, value in options.items()
    }


def flat_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with flat options; a group with nothing but comments in it has its defaults."""
    flat = dict(content)
    for name in GROUPS:
        if name in flat:
            flat[name] = split_group(name, flat[name])[1]
            if not flat[name]:
                del flat[name]
    return flat


def flat_arguments(args: Sequence[str]) -> list[str]:
    """Return a command line with flat options.

    >>> flat_arguments(["fit", "--data", "mine.MyData", "--data.init_args.folder=x"])
    ['fit', '--data.folder=x']
    """
    flat: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        option, separator, value = arg.partition("=")
        group, _, name = option.removeprefix("--").partition(".")
        if option in CONFIG_OPTIONS or (option.startswith("--") and group in GROUPS and name in ("", "class_path")):
            if not separator and (not rest or rest[0].startswith("--")):
                flat.append(arg)  # the parser reports that its value is missing
                continue
            value = value if separator else rest.pop(0)
            if option in CONFIG_OPTIONS:
                content = read_config(value)
                flat += [option, value] if content == (plain := flat_config(content)) else ["--config", to_yaml(plain)]
            elif not name and (options := split_group(group, value_of_group(value))[1]):
                flat.append(f"{option}={to_yaml(options)}")
        elif group in GROUPS and name.partition(".")[0] in NESTED:
            flat.append(f"--{group}.{name.partition('.')[2]}{separator}{value}")
        else:
            flat.append(arg)
    return flat


def named_classes(args: Sequence[str], group: str) -> Iterator[str]:
    """Yield the class paths that a command line and its config files give to a group, the decisive one first."""
    values = (value_of_group(text) for text in reversed(values_of(args, f"--{group}", f"--{group}.class_path")))
    contents = (read_config(file).get(group) for file in reversed(values_of(args, *CONFIG_OPTIONS)))
    for value in chain(values, contents):
        if path := split_group(group, value)[0]:
            yield path


def value_of_group(text: str) -> Any:
    """Return what `--model TEXT` means: the content of a file, options in braces, or a class path."""
    if os.path.isfile(text):
        return read_config(text)
    if text.lstrip()[:1] not in ("{", "[") and text not in ("", "null"):
        return text
    try:
        return parse_yaml(text)
    except FAULTS as error:
        raise ConfigError(f"{shortened(text)} is not YAML: {getattr(error, 'problem', None) or error}") from error


def to_yaml(options: Mapping[str, Any]) -> str:
    """Return options as YAML in one line, for a command line."""
    return yaml.safe_dump(options, default_flow_style=True, width=math.inf, sort_keys=False).strip()
