"""Read config files safely: local YAML files of limited size, no duplicate keys, no imports that run commands."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from mnist_lightning.console import expand_home
from mnist_lightning.errors import ConfigError

MAX_BYTES = 64 * 1024  # several times the complete config of a run

CONFIG_OPTIONS = ("-c", "--config")
GROUP_OPTIONS = ("--trainer", "--model", "--data", "--early_stopping", "--checkpoint")

_jsonargparse_load = get_loader("yaml")
# What loading a malformed text raises, an impossible date or a number of thousands of digits included.
FAULTS = (yaml.YAMLError, ValueError, TypeError, RecursionError)


def guard_configs() -> None:
    """Make jsonargparse read local files only, refuse duplicate keys, and import nothing on its list of denied paths.

    That list names what runs commands or code given as text, such as `os.system` and `builtins.eval`. Any other class
    can be named, of an installed package or of a module in the working directory.
    """
    set_parsing_settings(
        config_read_mode_fsspec_enabled=False,  # importing Lightning enables it
        config_read_mode_urls_enabled=False,
        import_path_denylist=[],  # no more than jsonargparse's own list, but enforced
    )
    set_loader("yaml", parse_yaml, exceptions=FAULTS)


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the content of a config file.

    Raises:
        ConfigError: If it is not a YAML file of options, is too large, or has duplicate keys.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{path} is not a file; configs are read from local files only")
    if (size := os.path.getsize(path)) > MAX_BYTES:
        raise ConfigError(f"{path} has {size:,} bytes; a config may have at most {MAX_BYTES:,}")
    try:
        content: Any = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except FAULTS as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line} is not YAML: {problem or str(error).splitlines()[0]}") from error
    if not content or not _is_options(content):
        raise ConfigError(f"{path} contains no options; a config has lines such as `seed_everything: 0`")
    for key, value in content.items():
        if isinstance(value, list | dict) and not _is_options(value):
            raise ConfigError(f"{path}: {key} must contain options, got {value!r:.80}")
    return cast(dict[str, Any], content)


def values_of(args: Sequence[str], *options: str) -> list[str]:
    """Return the values that a command line gives to options, in order.

    >>> values_of(["fit", "--config", "a.yaml", "--config=b.yaml"], "--config")
    ['a.yaml', 'b.yaml']
    """
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    return [value for option, value in pairs if option in options and not value.startswith("-")]


def config_files(args: Sequence[str]) -> list[str]:
    """Return the config files that a command line names, those of single groups (`--model FILE`) included."""
    return values_of(args, *CONFIG_OPTIONS) + [file for file in values_of(args, *GROUP_OPTIONS) if os.path.isfile(file)]


def place_of(key: str, args: Sequence[str]) -> str:
    """Return ` in FILE, line N` if a config file sets a key, and "" if nothing does or the command line itself."""
    if any(arg.split("=")[0] == f"--{key}" for arg in args):
        return ""
    for file in reversed(config_files(args)):
        try:
            node = yaml.compose(Path(file).read_text())
        except (OSError, UnicodeError, yaml.YAMLError):
            continue
        line = None
        for name in key.split("."):
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            pairs = pairs + [pair for k, v in pairs if k.value == "init_args" for pair in v.value]
            line, node = next(((k.start_mark.line + 1, v) for k, v in pairs if k.value == name), (None, None))
        if line:
            return f" in {file}, line {line}"
    return ""


def _is_options(content: object) -> bool:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text as jsonargparse reads it; a key that is set twice is a YAMLError."""
    _refuse_duplicate_keys(yaml.compose(text))
    return _with_home(_jsonargparse_load(text))


def _with_home(content: Any) -> Any:
    """Return the content of a config with `~` as the first folder of a path replaced by the home folder."""
    if isinstance(content, dict):
        return {key: _with_home(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_home(value) for value in content]
    return expand_home(content) if isinstance(content, str) else content


def _refuse_duplicate_keys(node: yaml.Node | None) -> None:
    keys: set[str] = set()
    for item in node.value if isinstance(node, yaml.CollectionNode) else []:
        key, value = item if isinstance(item, tuple) else (None, item)
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is set twice", problem_mark=key.start_mark)
            keys.add(key.value)
        _refuse_duplicate_keys(value)
