"""Classes and functions named by a path, with arguments: plain values that a checkpoint can hold and rebuild."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import Parameter, isabstract, isclass, signature
from types import MappingProxyType
from typing import Any, TypeVar

from torch import nn

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
        path, arguments = target.get("class_path"), target.get("init_args", {})
        if not isinstance(path, str) or not isinstance(arguments, dict | None):
            raise ConfigError(f"a class is named by its class_path and init_args, got {target!r:.80}")
        if arguments is None:
            raise ConfigError(f"{path} was given as an object, so its arguments are not known: pass it again")
        return {"class_path": path, "init_args": dict(arguments)}
    function = target.func if isinstance(target, partial) else target
    arguments = dict(target.keywords) if isinstance(target, partial) else {}
    if not hasattr(function, "__qualname__"):
        function, arguments = type(function), None
    path = f"{function.__module__}.{function.__qualname__}"
    _given[path] = function
    return {"class_path": path, "init_args": arguments}


def import_object(path: str) -> Any:
    """Return what a dotted path such as `torchvision.models.resnet18` names, or what was given to `class_path_of`.

    If it cannot be imported, a ConfigError says whether a module, a package or a name is missing.
    """
    if path in _given:
        return _given[path]
    module, _, name = path.rpartition(".")
    if not module:
        raise ConfigError(f"{path} is not the path of a class, such as my_module.{path or 'MyClass'}")
    if module.partition(".")[0] in sys.stdlib_module_names:  # nothing in there that a config or checkpoint may call
        raise ConfigError(f"{path} is of Python's standard library, which has no such class")
    try:
        return getattr(import_module(module), name)
    except AttributeError as error:
        if error.name != name:  # raised while the module was imported
            raise ConfigError(f"{path} cannot be imported: {error}") from error
        raise ConfigError(f"{module} has no {name}{did_you_mean(name, dir(import_module(module)), '')}") from error
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{module}.".startswith(f"{missing}."):
            where = "neither in the working directory nor in an installed package"
            raise ConfigError(f"{path} cannot be imported: module {missing} is {where}") from error
        raise ConfigError(f"{path} cannot be imported: it needs the package {missing}, which is missing") from error
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def resolve_subclass(path: str, kind: type[T]) -> type[T]:
    """Return the class that a path names, or the loaded class of that name; it must be a subclass of `kind`."""
    loaded = {each.__name__: each for each in loaded_subclasses(kind)}
    if "." not in path and path not in loaded:
        raise ConfigError(f"there is no {kind.__name__} {path}{did_you_mean(path, loaded, '')}; give its full path")
    target = loaded[path] if path in loaded else import_object(path)
    if not isclass(target) or not issubclass(target, kind):
        what = "a class" if isclass(target) else f"a {type(target).__name__}"
        raise ConfigError(f"{path} is {what}, but not a subclass of {kind.__name__}")
    if isabstract(target):
        missing = ", ".join(sorted(getattr(target, "__abstractmethods__")))  # noqa: B009  # of abstract classes only
        raise ConfigError(f"{path} is abstract; name a subclass that defines {missing}")
    return target


def loaded_subclasses(kind: type[T]) -> Iterator[type[T]]:
    """Yield the subclasses of a class that are imported, and theirs."""
    for each in kind.__subclasses__():
        yield each
        yield from loaded_subclasses(each)


def path_of(target: type) -> str:
    """Return the import path of a class: from its top package if that exports it, else from its module."""
    package = target.__module__.partition(".")[0]
    public = getattr(sys.modules.get(package), target.__qualname__, None) is target
    return f"{package if public else target.__module__}.{target.__qualname__}"


def with_arguments(class_path: ClassPath, determined: Mapping[str, Any]) -> ClassPath:
    """Return a class path with the arguments that are determined elsewhere, as far as it has arguments of these names.

    A function that passes keywords on, as those of torchvision.models do, is taken to accept `num_classes`. An argument
    that was set to another value is a ConfigError.
    """
    target = import_object(class_path["class_path"])
    try:
        parameters = signature(target).parameters
    except ValueError:  # a built-in class
        parameters = MappingProxyType({})
    passes_on = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    passes_on &= getattr(target, "__init__", None) is not nn.Module.__init__
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
    """Call the class or function that a path names, with positional arguments in front; return a `kind`.

    If it cannot be called with these arguments, or returns something else, that is a ConfigError.
    """
    target = import_object(path := class_path["class_path"])
    if isclass(target) and not issubclass(target, kind):
        raise ConfigError(f"{path} is not a subclass of {kind.__name__}")
    try:
        result = target(*args, **class_path["init_args"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(result, kind):
        raise ConfigError(f"{path} returns {type(result).__name__}, not a {kind.__name__}")
    return result
