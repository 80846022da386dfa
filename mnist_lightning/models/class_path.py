"""Classes and functions named by a path, with arguments: plain values that a checkpoint can hold and rebuild."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from inspect import Parameter, isclass, signature
from types import MappingProxyType
from typing import Any, TypeVar

from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError

T = TypeVar("T")
ClassPath = dict[str, Any]  # {"class_path": "torchvision.models.resnet18", "init_args": {"progress": False}}

_given: dict[str, Callable[..., Any]] = {}  # what was given to `class_path_of`: it need not be importable


def class_path_of(target: Callable[..., Any] | ClassPath | str) -> ClassPath:
    """Return the path and the arguments of a class, of a function, or of a `functools.partial` of one.

    The arguments of an object that was created elsewhere are not known: None.

    >>> class_path_of(partial(dict, a=1))
    {'class_path': 'builtins.dict', 'init_args': {'a': 1}}
    """
    if isinstance(target, str):
        return {"class_path": target, "init_args": {}}
    if isinstance(target, dict):
        if target.get("init_args", {}) is None:
            raise ConfigError(
                f"{target['class_path']} was given as an object, so its arguments are not known: pass it again"
            )
        return {"class_path": target["class_path"], "init_args": dict(target.get("init_args", {}))}
    function = target.func if isinstance(target, partial) else target
    arguments: dict[str, Any] | None = dict(target.keywords) if isinstance(target, partial) else {}
    if not hasattr(function, "__qualname__"):
        function, arguments = type(function), None
    path = f"{function.__module__}.{function.__qualname__}"
    _given[path] = function
    return {"class_path": path, "init_args": arguments}


def resolve(class_path: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the class or function that a path names.

    Raises:
        ConfigError: If it cannot be imported.
    """
    path: str = class_path["class_path"]
    if path in _given:
        return _given[path]
    module, _, name = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path} cannot be imported: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"{module} has no {name}{did_you_mean(name, dir(import_module(module)), '')}") from error
    return target


def with_arguments(class_path: ClassPath, determined: Mapping[str, Any]) -> ClassPath:
    """Return a class path with the arguments that are determined elsewhere, as far as it has arguments of these names.

    A function that passes keywords on, as those of torchvision.models do, is taken to accept `num_classes`.

    Raises:
        ConfigError: If an argument was set to another value.
    """
    try:
        parameters = signature(resolve(class_path)).parameters
    except ValueError:  # a built-in class
        parameters = MappingProxyType({})
    passes_on = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = dict(class_path["init_args"])
    for name, value in determined.items():
        given = arguments.get(name, value)
        default = parameters[name].default if name in parameters else given
        if given not in (value, default):
            raise ConfigError(f"{class_path['class_path']}: {name} is {given}, but the data and options need {value}")
        if name in parameters or name in arguments or (passes_on and name == "num_classes"):
            arguments[name] = value
    return {"class_path": class_path["class_path"], "init_args": arguments}


def build(class_path: ClassPath, kind: type[T], *args: Any) -> T:
    """Call the class or function that a path names.

    Args:
        class_path: Path and arguments.
        kind: What the result must be an instance of.
        *args: Positional arguments that come first.

    Raises:
        ConfigError: If it cannot be called with these arguments, or returns something else.
    """
    path, target = class_path["class_path"], resolve(class_path)
    if isclass(target) and not issubclass(target, kind):
        raise ConfigError(f"{path} is not a subclass of {kind.__name__}")
    try:
        result = target(*args, **class_path["init_args"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(result, kind):
        raise ConfigError(f"{path} returns {type(result).__name__}, not a {kind.__name__}")
    return result
