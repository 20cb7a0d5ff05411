"""Inspect and call users' functions: signature, import name, binding of parameters.

Used by flows, tasks, callbacks and environments.
"""

from __future__ import annotations

import contextvars
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from inspect import Parameter, Signature
from types import FunctionType
from typing import Any, NamedTuple

from dispatcher.errors import INTERRUPTS, InvalidInput, InvalidParameters
from dispatcher.support.foreign_objects import describe_exception

#: Bits of a code object's flags.
_STAR, _DOUBLE_STAR = inspect.CO_VARARGS, inspect.CO_VARKEYWORDS


class Shape(NamedTuple):
    """The parameters of a function.

    ``positional`` ones are positional-only, ``keywords`` are keyword-only. ``star`` and ``double_star`` are the names
    of ``*args`` and ``**kwargs``, empty if there are none.
    """

    positional: tuple[str, ...]
    either: tuple[str, ...]
    keywords: tuple[str, ...]
    star: str
    double_star: str
    defaults: Mapping[str, Any]


def shape_of(fn: FunctionType) -> Shape:
    """Read the parameters from the code object, or from a signature that the function overrides.

    :func:`inspect.signature` takes longer than a small flow, whose function is made anew for each run.
    """
    if fn.__dict__:
        return _shape_of_signature(inspect.signature(fn))
    code, names = fn.__code__, fn.__code__.co_varnames
    positional, end = code.co_posonlyargcount, code.co_argcount
    rest = end + code.co_kwonlyargcount
    star = names[rest] if code.co_flags & _STAR else ""
    double_star = names[rest + bool(star)] if code.co_flags & _DOUBLE_STAR else ""
    values = fn.__defaults__ or ()
    defaults = {**dict(zip(names[end - len(values) : end], values, strict=True)), **(fn.__kwdefaults__ or {})}
    return Shape(names[:positional], names[positional:end], names[end:rest], star, double_star, defaults)


def _shape_of_signature(signature: Signature) -> Shape:
    kinds: dict[Any, list[str]] = {}
    for parameter in signature.parameters.values():
        kinds.setdefault(parameter.kind, []).append(parameter.name)
    positional, either, keywords, star, double_star = (
        tuple(kinds.get(kind, ()))
        for kind in (
            Parameter.POSITIONAL_ONLY,
            Parameter.POSITIONAL_OR_KEYWORD,
            Parameter.KEYWORD_ONLY,
            Parameter.VAR_POSITIONAL,
            Parameter.VAR_KEYWORD,
        )
    )
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not Parameter.empty}
    return Shape(positional, either, keywords, "".join(star), "".join(double_star), defaults)


def bind(
    fn: FunctionType, parameters: Mapping[str, Any] | None, *, subject: str, shape: Shape | None = None
) -> dict[str, Any]:
    """Check a mapping of parameters against a function's signature. Defaults aren't filled in.

    Positional-only parameters are given by name, too; ``*args`` is a list under its own name; other names go to
    ``**kwargs`` if there is one.

    Args:
        fn: the function.
        parameters: names and values.
        subject: name of the function in messages.
        shape: its shape, if the caller has it.

    Raises:
        InvalidParameters: names each unknown and each missing parameter, and shows the signature.
    """
    values = bind_names(parameters, subject=subject)
    shape = shape or shape_of(fn)
    named = (*shape.positional, *shape.either, *shape.keywords)
    missing = [name for name in named if name not in values and name not in shape.defaults]
    unknown = [name for name in values if name not in named and name != shape.star] if not shape.double_star else []
    problems = [
        f"{problem} {_listed(names)}" for problem, names in (("missing", missing), ("unknown", unknown)) if names
    ]
    if shape.star and shape.star in values and not isinstance(values[shape.star], list | tuple):
        problems.append(f"{shape.star!r} must be a list, got {type(values[shape.star]).__name__}")
    if problems:
        raise InvalidParameters(f"{subject}: {'; '.join(problems)}. Its signature: {shown(inspect.signature(fn))}")
    return values


def bind_call(fn: FunctionType, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, subject: str) -> dict[str, Any]:
    """Return the arguments of a call as a mapping of parameters, as :func:`bind` takes it.

    Args:
        fn: the function.
        args: the positional arguments.
        kwargs: the keyword arguments.
        subject: name of the function in messages.

    Raises:
        InvalidParameters: they don't fit the signature; shows it.
    """
    signature = inspect.signature(fn)
    try:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InvalidParameters(f"{subject}: {error}. Its signature: {shown(signature)}") from None
    shape = shape_of(fn)
    if shape.star in arguments:
        arguments[shape.star] = list(arguments[shape.star])
    more = arguments.pop(shape.double_star, {})
    return {**arguments, **more}


def spread(shape: Shape, bound: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the keyword arguments for parameters that :func:`bind` has checked."""
    left = dict(bound)
    more = left.pop(shape.star, ()) if shape.star else ()
    positional = shape.positional + shape.either if more else shape.positional
    last = max((n for n, name in enumerate(positional) if name in left), default=-1)
    # All before the last positional argument must be passed, too: defaults fill the gaps.
    end = len(positional) if more else last + 1
    arguments = [left.pop(name) if name in left else shape.defaults[name] for name in positional[:end]]
    arguments.extend(more)
    return arguments, left


def shown(signature: Signature) -> str:
    """Return a signature for people, without the memory addresses that defaults may contain."""
    return str(signature) if " at 0x" not in str(signature) else "(" + ", ".join(signature.parameters) + ")"


def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function in this process; a coroutine function under :func:`asyncio.run`.

    If this thread already runs an event loop, as in a notebook, the coroutine gets a thread of its own.
    """
    if not _is_async(fn):
        return fn(*args, **kwargs)
    import asyncio

    run = _in_thread if _loop_runs() else asyncio.run
    return run(fn(*args, **kwargs))


def _is_async(fn: Callable[..., Any]) -> bool:
    if type(fn) is FunctionType and not fn.__dict__:  # fast path for the usual case
        return bool(fn.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn)


def check_callback(callback: Any, *, subject: str) -> None:
    """Check that a callback is a plain function that can be called without arguments.

    Raises:
        InvalidInput: it isn't one.
    """
    if not callable(callback):
        raise InvalidInput(f"{subject}: must be a function without arguments, got {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise InvalidInput(
            f"{subject}: {shown_name(callback)} is async; give a plain function, which may call asyncio.run"
        )
    try:
        signature = inspect.signature(callback)
    except ValueError:  # some builtins have no signature
        return
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidInput(
            f"{subject}: is called without arguments, but {shown_name(callback)}{shown(signature)} can't be: {error}"
        ) from None


def shown_name(obj: Any) -> str:
    """Return ``module.name`` of a function or class, else its repr."""
    name = getattr(obj, "__qualname__", None)
    return f"{getattr(obj, '__module__', '?')}.{name}" if isinstance(name, str) else repr(obj)


def importable_name(obj: Any) -> str | None:
    """Return the ``module:attribute`` that imports this very object; None if there is none."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or module not in sys.modules:
        return None
    target: Any = sys.modules[module]
    for part in name.split("."):
        target = getattr(target, part, None)
    return f"{module}:{name}" if target is obj else None


def by_reference(obj: Any) -> str | None:
    """Return the attribute by which pickle may reference ``obj`` in its module; None if it must be pickled by value."""
    name = importable_name(obj)
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle else ()
    parts = module.split(".")
    return None if any(".".join(parts[:n]) in registered for n in range(1, len(parts) + 1)) else attribute


def resolve(name: str, *, subject: str) -> Any:
    """Import ``package.module:attribute`` or ``package.module.Attribute``.

    Raises:
        InvalidInput: names the module or attribute that can't be imported or found.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput(f"{subject}: must be 'package.module:name', got {name!r}")
    try:
        target: Any = importlib.import_module(module)
    except INTERRUPTS:
        raise
    except BaseException as error:  # the module's own code may raise anything
        raise InvalidInput(f"{subject}: can't import {module!r} of {name!r}: {describe_exception(error)}") from error
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            raise InvalidInput(f"{subject}: {module!r} has no {attribute!r} (from {name!r})") from None
    return target


def bind_names(parameters: Any, *, subject: str) -> dict[str, Any]:
    """Return parameters as a dict with string keys; empty for None.

    Raises:
        InvalidParameters: they aren't a mapping of names to values.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise InvalidParameters(
            f"{subject}: parameters must be one mapping of names to values, got {type(parameters).__name__}"
        )
    for name in parameters:
        if not isinstance(name, str):
            raise InvalidParameters(f"{subject}: parameter names must be strings, got {name!r}")
    return dict(parameters)


def _listed(names: list[str]) -> str:
    return f"parameter{'s' * (len(names) > 1)} " + ", ".join(repr(name) for name in names)


def _loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:  # re-raised in the calling thread
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="flow")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def argument_name(fn: Any, key: int | str, argument: Any) -> str:
    """Return the name, in an error, of an argument of a task: ``task 'add': argument 'left' (list)``."""
    task = getattr(fn, "name", None) or getattr(fn, "__name__", None) or "task"
    return f"task {task!r}: argument {_parameter(fn, key)!r} ({type(argument).__qualname__})"


def _parameter(fn: Any, key: int | str) -> int | str:
    """Return the parameter's name of an argument that is given by position or by name."""
    if isinstance(key, str):
        return key
    try:
        parameters = inspect.signature(getattr(fn, "fn", fn)).parameters.values()
    except (TypeError, ValueError):
        return key
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return names[key] if key < len(names) else key
