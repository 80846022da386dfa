"""What a config file may contain: little text, no aliases, no key twice, and classes from known packages only.

A config can name classes to import, and YAML can be made to unfold without end; so configs from elsewhere are read with
the care that checkpoints are read with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings

from mnist_lightning.errors import ConfigError

MAX_CONFIG_BYTES = 64 * 1024  # some thirty times a complete config of a run

# Packages whose classes a config may name (`trainer.callbacks`, `trainer.logger`, …). Add your own here.
IMPORTABLE = ("mnist_lightning", "lightning.pytorch", "lightning.fabric", "torch.optim", "torch.nn")

_read_yaml = get_loader("yaml")


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
        ConfigError: If one is an address, no file, too large, no text, or holds what no config needs.
    """
    for file in files:
        path = Path(file)
        if "://" in file or "\n" in file:
            raise ConfigError(f"{file.splitlines()[0][:80]}: configs are read from local files only")
        if not path.exists():
            continue
        if not path.is_file():
            raise ConfigError(f"{file} is not a file")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{file} has {path.stat().st_size:,} bytes; a config has at most {MAX_CONFIG_BYTES:,}")
        try:
            _refuse_excess(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is not text") from error
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error


def _load(text: str) -> Any:
    _refuse_excess(text)
    return _read_yaml(text)


def _refuse_excess(text: str) -> None:
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"a config has at most {MAX_CONFIG_BYTES:,} characters, this one has {len(text):,}")
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ConfigError("a config may not use YAML aliases (*name): write the value out")
        if "\n" in text or "{" in text:
            _refuse_repeated_keys(yaml.compose(text))
    except yaml.YAMLError:
        return  # no YAML: the parser says so, and where


def _refuse_repeated_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for key, value in node.value:
            if keys.count(key.value) > 1:
                raise ConfigError(f"{key.value} is set twice in a config, line {key.start_mark.line + 1}")
            _refuse_repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value)
