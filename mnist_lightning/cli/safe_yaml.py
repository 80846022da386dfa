"""Read config files safely: local YAML files of limited size, no duplicate keys, classes of known packages only."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from mnist_lightning.errors import ConfigError

MAX_BYTES = 64 * 1024  # several times the complete config of a run

# Packages whose classes a config may name (`trainer.callbacks`, `trainer.logger`, …). Add your own here.
IMPORTABLE = ("mnist_lightning", "lightning.pytorch", "lightning.fabric", "torch.optim", "torch.nn")
GROUP_OPTIONS = ("--trainer", "--model", "--data", "--early_stopping", "--checkpoint")

_jsonargparse_load = get_loader("yaml")


def guard_configs() -> None:
    """Make jsonargparse read local files only, import from known packages only, and refuse duplicate keys."""
    set_parsing_settings(
        config_read_mode_fsspec_enabled=False,  # importing Lightning enables it
        config_read_mode_urls_enabled=False,
        import_path_denylist=["*"],
        import_path_allowlist=list(IMPORTABLE),
    )
    set_loader("yaml", _load_without_empty_groups, exceptions=(yaml.YAMLError,))


def check_files(files: Sequence[str]) -> None:
    """Check config files before they are parsed; the parser itself reports files that do not exist.

    Raises:
        ConfigError: As `read_config` does.
    """
    for file in files:
        if "://" in file or "\n" in file:
            raise ConfigError(f"{file.splitlines()[0][:80]}: configs are read from local files only")
        if Path(file).exists():
            read_config(Path(file))


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config file.

    Raises:
        ConfigError: If it is not a YAML file of options, is too large, or has duplicate keys.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; a config may have at most {MAX_BYTES:,}")
    try:
        content: Any = _load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not content or not _is_options(content):
        raise ConfigError(f"{path} contains no options; a config has lines such as `seed_everything: 0`")
    for key, value in content.items():
        if isinstance(value, list | dict) and not _is_options(value):
            raise ConfigError(f"{path}: {key} must contain options, got {value!r:.80}")
    return cast(dict[str, Any], content)


def config_files(args: Sequence[str]) -> list[str]:
    """Return the config files that a command line names, those of single groups (`--model FILE`) included."""
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    whole = [file for option, file in pairs if option in ("-c", "--config")]
    return whole + [file for option, file in pairs if option in GROUP_OPTIONS and os.path.isfile(file)]


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


def _is_options(content: object) -> bool:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)


def _load_without_empty_groups(text: str) -> Any:
    content = _load(text)
    if isinstance(content, dict):  # a group with nothing but comments in it has its defaults
        return {key: value for key, value in content.items() if value is not None or key not in ("model", "data")}
    return content


def _load(text: str) -> Any:
    try:
        _refuse_duplicate_keys(yaml.compose(text))
        return _jsonargparse_load(text)
    except TypeError as error:  # jsonargparse's, if the only key is not text, as in `1:`
        raise ConfigError("the lines of a config start with the name of an option") from error
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:  # an impossible date or a number of thousands of digits
        raise error if isinstance(error, ConfigError) else yaml.YAMLError(str(error)) from error


def _refuse_duplicate_keys(node: yaml.Node | None) -> None:
    keys: set[str] = set()
    for item in node.value if isinstance(node, yaml.CollectionNode) else []:
        key, value = item if isinstance(item, tuple) else (None, item)
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                raise ConfigError(f"line {key.start_mark.line + 1}: {key.value} is set twice")
            keys.add(key.value)
        _refuse_duplicate_keys(value)
