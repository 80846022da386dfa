"""What a config file may contain: little text, plain values, no key twice, and classes from known packages only.

A config can name classes to import, and YAML can be made to unfold without end; so configs from elsewhere are read with
the care that checkpoints are read with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from mnist_lightning.errors import ConfigError

# Each is several times what a complete config of a run has.
MAX_CHARACTERS = 64 * 1024
MAX_VALUE_CHARACTERS = 1000
MAX_DEPTH = 20

# Packages whose classes a config may name (`trainer.callbacks`, `trainer.logger`, …). Add your own here.
IMPORTABLE = ("mnist_lightning", "lightning.pytorch", "lightning.fabric", "torch.optim", "torch.nn")

_parser_reads = get_loader("yaml")


def guard_configs() -> None:
    """Make jsonargparse refuse what no config needs; local files only."""
    set_parsing_settings(
        config_read_mode_fsspec_enabled=False,  # Lightning's import switches it on
        config_read_mode_urls_enabled=False,
        import_path_denylist=["*"],
        import_path_allowlist=list(IMPORTABLE),
    )
    set_loader("yaml", _load, exceptions=(yaml.YAMLError,))


def check_files(files: Sequence[str]) -> None:
    """Check config files before anything reads them; what does not exist is left to the parser to report.

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
        ConfigError: If it is no file, too large, no YAML text, holds no options, or holds what no config needs.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not a file")
    if path.stat().st_size > MAX_CHARACTERS:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; a config has at most {MAX_CHARACTERS:,}")
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = _load(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not content or not _is_options(content):
        raise ConfigError(f"{path} holds no options; a config has lines such as `seed_everything: 0`")
    for key, value in content.items():
        if isinstance(value, list | dict) and not _is_options(value):
            raise ConfigError(f"{path}: {key} holds {value!r:.80}, where options are expected")
    return cast(dict[str, Any], content)


def _is_options(content: object) -> bool:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)


def _load(text: str) -> Any:
    _refuse_excess(text)
    try:
        return _parser_reads(text)
    except TypeError as error:  # the parser's own, on a lone key that is no text, such as `1:`
        raise ConfigError("a config's lines start with the name of an option") from error


def _refuse_excess(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"a config has at most {MAX_CHARACTERS:,} characters, this one has {len(text):,}")
    depth = 0
    for event in yaml.parse(text):  # one by one: nothing unfolds before it has been looked at
        place = f"line {event.start_mark.line + 1 if event.start_mark else 1}: a config"
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"{place} may not use YAML aliases (*name); write the value out")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            raise ConfigError(f"{place} may not use YAML tags ({event.tag}); write a plain value")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_VALUE_CHARACTERS:
            raise ConfigError(f"{place} has values of at most {MAX_VALUE_CHARACTERS:,} characters")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{place} is nested at most {MAX_DEPTH} deep")
    _refuse_repeated_keys(yaml.compose(text))


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    seen: set[str] = set()
    for item in node.value if isinstance(node, yaml.CollectionNode) else []:
        key, value = item if isinstance(item, tuple) else (None, item)
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise ConfigError(f"line {key.start_mark.line + 1}: {key.value} is set twice in a config")
        seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        _refuse_repeated_keys(value)
