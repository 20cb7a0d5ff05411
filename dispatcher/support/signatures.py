"""Questions to a user's function: its signature, its import name, a call.

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
    """The parameters of a function: names given by place alone, either way, by name alone; the names of ``*args`` and
    ``**kwargs``, empty where there is none; and the defaults."""

    places: tuple[str, ...]
    either: tuple[str, ...]
    keywords: tuple[str, ...]
    star: str
    double_star: str
    defaults: Mapping[str, Any]


def shape_of(fn: FunctionType) -> Shape:
    """Read off the code: :func:`inspect.signature` takes longer than a small flow, whose function is made anew for
    each run. A function that says another signature is asked for that."""
    if fn.__dict__:
        return _said(inspect.signature(fn))
    code, names = fn.__code__, fn.__code__.co_varnames
    by_place, end = code.co_posonlyargcount, code.co_argcount
    rest = end + code.co_kwonlyargcount
    star = names[rest] if code.co_flags & _STAR else ""
    double_star = names[rest + bool(star)] if code.co_flags & _DOUBLE_STAR else ""
    given = fn.__defaults__ or ()
    defaults = {**dict(zip(names[end - len(given) : end], given, strict=True)), **(fn.__kwdefaults__ or {})}
    return Shape(names[:by_place], names[by_place:end], names[end:rest], star, double_star, defaults)


def _said(signature: Signature) -> Shape:
    kinds: dict[Any, list[str]] = {}
    for parameter in signature.parameters.values():
        kinds.setdefault(parameter.kind, []).append(parameter.name)
    places, either, keywords, star, double_star = (
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
    return Shape(places, either, keywords, "".join(star), "".join(double_star), defaults)


def bind(
    fn: FunctionType, parameters: Mapping[str, Any] | None, *, subject: str, shape: Shape | None = None
) -> dict[str, Any]:
    """Check one mapping against a function's signature; defaults are not filled.

    Positional-only parameters are given by name as well; ``*args`` is given as a list under its own name; names that
    the signature doesn't have go to ``**kwargs``, if there is one.

    Args:
        fn: the function.
        parameters: names and values.
        subject: name of the function in messages.
        shape: its shape, if the caller has it.

    Raises:
        InvalidParameters: names each unknown and each missing parameter, and shows the signature.
    """
    given = bind_names(parameters, subject=subject)
    shape = shape or shape_of(fn)
    named = (*shape.places, *shape.either, *shape.keywords)
    missing = [name for name in named if name not in given and name not in shape.defaults]
    unknown = [name for name in given if name not in named and name != shape.star] if not shape.double_star else []
    problems = [
        f"{problem} {_listed(names)}" for problem, names in (("missing", missing), ("unknown", unknown)) if names
    ]
    if shape.star and shape.star in given and not isinstance(given[shape.star], list | tuple):
        problems.append(f"{shape.star!r} must be a list, got {type(given[shape.star]).__name__}")
    if problems:
        raise InvalidParameters(f"{subject}: {'; '.join(problems)}. Its signature: {shown(inspect.signature(fn))}")
    return given


def spread(shape: Shape, bound: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments for parameters that :func:`bind` has checked."""
    left = dict(bound)
    more = left.pop(shape.star, ()) if shape.star else ()
    by_place = shape.places + shape.either if more else shape.places
    last = max((n for n, name in enumerate(by_place) if name in left), default=-1)
    # Whatever stands before the last one given by place must be given too: its default fills the gap.
    end = len(by_place) if more else last + 1
    arguments = [left.pop(name) if name in left else shape.defaults[name] for name in by_place[:end]]
    arguments.extend(more)
    return arguments, left


def shown(signature: Signature) -> str:
    """A signature for people, without the memory addresses that defaults may show."""
    return str(signature) if " at 0x" not in str(signature) else "(" + ", ".join(signature.parameters) + ")"


def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function here; a coroutine function under :func:`asyncio.run`.

    Where this thread runs an event loop already, as in a notebook, the coroutine gets a thread of its own.
    """
    if not _is_async(fn):
        return fn(*args, **kwargs)
    import asyncio

    run = _in_thread if _loop_runs() else asyncio.run
    return run(fn(*args, **kwargs))


def _is_async(fn: Callable[..., Any]) -> bool:
    if type(fn) is FunctionType and not fn.__dict__:  # the usual case, without much ado
        return bool(fn.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn)


def check_callback(callback: Any, *, subject: str) -> None:
    """Callbacks are plain functions that can be called without an argument.

    Raises:
        InvalidInput: it isn't one.
    """
    if not callable(callback):
        raise InvalidInput(f"{subject}: must be a function without arguments, got {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise InvalidInput(
            f"{subject}: {shown_name(callback)} is async; give a plain function, which may asyncio.run it"
        )
    try:
        signature = inspect.signature(callback)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidInput(
            f"{subject}: is called without arguments, but {shown_name(callback)}{shown(signature)} can't be: {error}"
        ) from None


def shown_name(obj: Any) -> str:
    """``module.name`` of a function or class, else its repr."""
    name = getattr(obj, "__qualname__", None)
    return f"{getattr(obj, '__module__', '?')}.{name}" if isinstance(name, str) else repr(obj)


def importable_name(obj: Any) -> str | None:
    """``module:attribute`` under which an import finds this very object; None if there is no such name."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or module not in sys.modules:
        return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is obj else None


def by_reference(obj: Any) -> str | None:
    """The attribute under which pickle may name ``obj`` in its module; None if it has to travel by value."""
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
        InvalidInput: names what can't be imported or found.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput(f"{subject}: must be 'package.module:name', got {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except INTERRUPTS:
        raise
    except BaseException as error:  # whatever the module's own code raises
        raise InvalidInput(f"{subject}: can't import {module!r} of {name!r}: {describe_exception(error)}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidInput(f"{subject}: {module!r} has no {attribute!r} (from {name!r})") from None
    return found


def bind_names(parameters: Any, *, subject: str) -> dict[str, Any]:
    """Parameters as a dict with string keys; None is none.

    Raises:
        InvalidParameters: they are something else.
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

    answer: list[Any] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(asyncio.run(coroutine))
        except BaseException as error:  # carried to the caller, whatever it is
            problem.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="flow")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return answer[0]
