"""What we ask of a user's function: its signature, its import name, a call.

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
from typing import Any
from weakref import WeakKeyDictionary

from dispatcher.errors import InvalidInput, InvalidParameters

_NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


_signatures: WeakKeyDictionary[FunctionType, tuple[Any, Any, Signature]] = WeakKeyDictionary()


def signature(fn: FunctionType) -> Signature:
    """As :func:`inspect.signature`, which takes longer than to bind; kept while code and defaults are the same."""
    if fn.__dict__ or fn.__kwdefaults__:  # it says another one, or its defaults may change in place
        return inspect.signature(fn)
    code, defaults, known = _signatures.get(fn, (None, None, None))
    if known is None or code is not fn.__code__ or defaults is not fn.__defaults__:
        known = inspect.signature(fn)
        _signatures[fn] = fn.__code__, fn.__defaults__, known
    return known


def bind(signature: Signature, parameters: Mapping[str, Any] | None, *, what: str) -> dict[str, Any]:
    """Check one mapping against a signature; defaults are not filled.

    Positional-only parameters are given by name as well; ``*args`` is given as a list under its own name; names that
    the signature doesn't have go to ``**kwargs``, if there is one.

    Raises:
        InvalidParameters: names each unknown and each missing parameter, and shows the signature.
    """
    given = bind_names(parameters, what=what)
    known = signature.parameters
    named = [p for p in known.values() if p.kind in _NAMED]
    star = next((p.name for p in known.values() if p.kind is Parameter.VAR_POSITIONAL), None)
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in known.values())
    missing = [p.name for p in named if p.default is Parameter.empty and p.name not in given]
    unknown = [name for name in given if name not in {p.name for p in named} and name != star and not takes_any]
    problems = [
        f"{what_of} {_listed(names)}" for what_of, names in (("missing", missing), ("unknown", unknown)) if names
    ]
    if star in given and not isinstance(given[star], list | tuple):
        problems.append(f"{star!r} must be a list, got {type(given[star]).__name__}")
    if problems:
        raise InvalidParameters(f"{what}: {'; '.join(problems)}. Its signature: {shown(signature)}")
    return given


def spread(signature: Signature, bound: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments for parameters that :func:`bind` has checked."""
    left = dict(bound)
    parameters = list(signature.parameters.values())
    star = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL and left.get(p.name)), None)
    by_place = [
        p
        for p in parameters
        if p.kind is Parameter.POSITIONAL_ONLY or (star and p.kind is Parameter.POSITIONAL_OR_KEYWORD)
    ]
    last = max((i for i, p in enumerate(by_place) if p.name in left), default=-1)
    # Whatever stands before the last one given by place must be given too: its default fills the gap.
    end = len(by_place) if star else last + 1
    arguments = [left.pop(p.name, p.default) for p in by_place[:end]]
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            arguments.extend(left.pop(parameter.name, ()))
    return arguments, left


def shown(signature: Signature) -> str:
    """A signature for people, without the memory addresses that defaults may show."""
    return str(signature) if " at 0x" not in str(signature) else "(" + ", ".join(signature.parameters) + ")"


def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function here; a coroutine function under :func:`asyncio.run`.

    Where this thread runs an event loop already, as in a notebook, the coroutine gets a thread of its own.
    """
    if not inspect.iscoroutinefunction(fn):
        return fn(*args, **kwargs)
    import asyncio

    run = _in_thread if _loop_runs() else asyncio.run
    return run(fn(*args, **kwargs))


def check_callback(callback: Any, *, what: str) -> None:
    """Callbacks are plain functions that can be called without an argument.

    Raises:
        InvalidInput: it isn't one.
    """
    if not callable(callback):
        raise InvalidInput(f"{what}: must be a function without arguments, got {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise InvalidInput(f"{what}: {shown_name(callback)} is async; give a plain function, which may asyncio.run it")
    try:
        signature = inspect.signature(callback)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind()
    except TypeError as error:
        raise InvalidInput(
            f"{what}: is called without arguments, but {shown_name(callback)}{shown(signature)} can't be: {error}"
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


def resolve(name: str, *, what: str) -> Any:
    """Import ``package.module:attribute`` or ``package.module.Attribute``.

    Raises:
        InvalidInput: names what can't be imported or found.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    if not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise InvalidInput(f"{what}: must be 'package.module:name', got {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever the module's own code raises
        raise InvalidInput(f"{what}: can't import {module!r} of {name!r}: {error}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidInput(f"{what}: {module!r} has no {attribute!r} (from {name!r})") from None
    return found


def bind_names(parameters: Any, *, what: str) -> dict[str, Any]:
    """Parameters as a dict with string keys; None is none.

    Raises:
        InvalidParameters: they are something else.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise InvalidParameters(
            f"{what}: parameters must be one mapping of names to values, got {type(parameters).__name__}"
        )
    for name in parameters:
        if not isinstance(name, str):
            raise InvalidParameters(f"{what}: parameter names must be strings, got {name!r}")
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
