"""What is wrong with a class that an option names, from the messages of jsonargparse."""

import re
from collections.abc import Iterator, Sequence
from inspect import Parameter, isfunction, signature
from typing import Any

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from mnist_lightning.cli.safe_yaml import config_files, place_of, read_config
from mnist_lightning.console import did_you_mean, shortened
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metric_collection import SHORT_NAMES
from mnist_lightning.models.class_path import import_object, loaded_subclasses
from mnist_lightning.models.network import DETERMINED

KINDS: tuple[type[Any], ...] = (nn.Module, Optimizer, LRScheduler, Callback, Logger)  # what options take classes of
PROBLEM = r"Problem with given class_path '(.+?)':\s*(.+)"
NOT_ACCEPTED = r"Option '(.+?)' is not accepted"
REQUIRED = r"the following arguments are required: (\S+)$"
LITERAL = r"Literal(\[.*?\])"
NESTED_KEY = r'Parser key "(\w+)":\s*(.+)'


def class_message(message: str, args: Sequence[str]) -> str:
    """Return an error message of jsonargparse about a class or its arguments in one line; "" if it is about others."""
    if match := re.search(NOT_ACCEPTED, message) or re.match(REQUIRED, message):
        return _about_argument(match[1], args, is_missing=match.re.pattern == REQUIRED)
    if match := re.match(NESTED_KEY, message, re.DOTALL):
        owner, wrong = next(_owners(match[1], args), None), wrong_value(match[2])
        if owner and wrong:
            return f"{owner[0]}.{match[1]} {wrong}"
    key = re.match(r'Parser key "(.+?)":', message)
    where = f"{key[1]}{place_of(key[1], args)}: " if key else ""
    if match := re.search(PROBLEM, message, re.DOTALL):
        return where + _about_class(match[1], match[2])
    wanted = re.search(r"subclass of (?:<class ')?(\w+)", message)
    given = re.search(r"class_path'?[=:] ?'(.+?)'", message) or re.search(r"Given value: (\S+)", message)
    kinds = [kind for kind in KINDS if re.search(rf"\b{kind.__name__}\b", message)]
    raised_by_class = re.search(r"^  - (?!Not a|Expected|Problem|Does not validate)(.+)", message, re.MULTILINE)
    if given and wanted and "." in given[1] and raised_by_class:
        return f"{where}{given[1]}: {raised_by_class[1]}"
    if given and wanted and "." in given[1]:
        return where + _about_class(given[1], f"not a subclass of {wanted[1]}")
    if given and key and kinds:
        choices = re.findall(r"'(\w+)'", "".join(re.findall(LITERAL, message)))
        return where + _about_name(given[1], kinds, choices)
    if key and key[1] == "model.metrics":
        for _, name in (each for each in _named(args) if each[0].startswith(key[1])):
            if name not in SHORT_NAMES and (reason := _about_metric(name)):
                return where + reason
    return ""


def _about_metric(name: str) -> str:
    """Return why a name is not that of a metric; "" if it can be imported."""
    try:
        return "" if "." in name and import_object(name) else _about_name(name, [Metric], list(SHORT_NAMES))
    except ConfigError as error:
        return str(error)


def wrong_value(message: str) -> str:
    """Return what a value must be and is, from jsonargparse's message on one of another type; "" for other messages."""
    expected = re.findall(r"Expected an? (?:<class ')?(typing\.Literal\[.*?\]|[^'>\n]+)", message)
    given = re.search(r"(?:Got value|Given value): (.+)", message)
    if not expected or not given:
        return ""
    allowed = " or ".join(dict.fromkeys(name.strip(". ").removeprefix("typing.Literal") for name in expected))
    return f"must be {allowed}, got {shortened(given[1])}"


def _about_class(path: str, reason: str) -> str:
    try:
        target = import_object(path)
    except ConfigError as error:
        return str(error)
    kind = reason.removeprefix("not a subclass of ")
    if kind != reason and isfunction(target) and "return" not in target.__annotations__:
        return f"{path} is a function that does not declare what it returns: def {target.__name__}(…) -> {kind}"
    reason = " ".join(reason.splitlines()[0].split())
    return f"{path}: {reason.split(', denied by')[0]}"  # jsonargparse's advice on its settings is for programmers


def _about_name(name: str, kinds: Sequence[type[Any]], choices: Sequence[str]) -> str:
    """Return why a value is neither one of some choices nor names a class of one of some kinds."""
    if "." in name:
        return _about_class(name, f"not a subclass of {kinds[-1].__name__}")
    classes: list[str] = [each.__name__ for kind in kinds for each in loaded_subclasses(kind)]
    or_choices = f", nor one of {', '.join(dict.fromkeys(choices))}" if choices else ""
    return f"{name} does not name a class{or_choices}{did_you_mean(name, [*choices, *classes], '')}"


def _about_argument(name: str, args: Sequence[str], *, is_missing: bool) -> str:
    """Return what is wrong with an argument of a class: it is missing, or the class does not have it."""
    for key, target in _owners(name if is_missing else None, args):
        option = f"{key}.{name}"
        if is_missing:
            return f"{key}{place_of(key, args)}: {target.__name__} needs the argument {name}; pass --{option}"
        if _is_given(option, args):
            if name in DETERMINED:
                return f"{option}{place_of(option, args)}: the data determine it; leave it out"
            nearest = did_you_mean(name, _parameters(target), "")
            return f"{option}{place_of(option, args)}: {target.__name__} has no argument {name}{nearest}"
    return ""


def _is_given(option: str, args: Sequence[str]) -> bool:
    on_command_line = any(arg.replace(".init_args.", ".").split("=")[0] == f"--{option}" for arg in args)
    return on_command_line or place_of(option, args) != ""


def _owners(argument: str | None, args: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the options that name a class, with the class; only those of classes that have an argument."""
    for key, path in _named(args):
        loaded: dict[str, type] = {each.__name__: each for kind in KINDS for each in loaded_subclasses(kind)}
        try:
            target = loaded[path] if path in loaded else import_object(path)
        except ConfigError:
            continue
        if argument is None or argument in _parameters(target):
            yield key, target


def _named(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options with text values, which may name classes, on a command line and in its config files."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        option, separator, value = arg.partition("=")
        if option.startswith("--"):
            key = option.removeprefix("--").removesuffix("+").removesuffix(".class_path")
            text = value if separator else following
            yield from _texts(values, key) if (values := _collection(text)) else [(key, text)]
    for file in config_files(args):
        yield from _texts(read_config(file), "")


def _collection(text: str) -> Any:
    """Return the list or mapping that the text of an option is; None if it is neither."""
    try:
        return yaml.safe_load(text) if text[:1] in ("[", "{") else None
    except yaml.YAMLError:
        return None


def _texts(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        nested = prefix if name in ("class_path", "init_args") or isinstance(name, int) else f"{prefix}.{name}"
        if isinstance(value, str):
            yield nested.removeprefix("."), value
        yield from _texts(value, nested)


def _parameters(target: Any) -> list[str]:
    try:
        parameters = signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each.name for each in parameters if each.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
