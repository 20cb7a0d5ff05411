"""Seal an object for another process, and open it there: a header line in JSON, then a pickle.

The submitter packs flows, callbacks and parameters; the runner packs results and exceptions. Only who runs the flow, or
a program that asks for a result, unpacks: verify the signature first (:mod:`dispatcher.keys`).
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import cloudpickle

from dispatcher.errors import INTERRUPTS, InvalidFlow, InvalidInput, OpeningFailed, Permanent
from dispatcher.runs.states import Cause
from dispatcher.serialization import by_value, class_loading, code_objects, exceptions, unpicklable, unreadable_item
from dispatcher.support.foreign_objects import describe_exception, repr_of, text_of

#: ``major.minor`` of this interpreter; pickled code opens in no other.
PYTHON = ".".join(platform.python_version_tuple()[:2])

#: Nested calls that a stack of C surely holds while it pickles.
_DEEPEST = 5000

_lock = threading.RLock()  # cloudpickle's register of modules belongs to the process


#: Told each object that isn't a plain value; how to make it at the other end, as ``__reduce__`` says, or None.
Reducer = Callable[[Any], tuple[Any, ...] | None]


def pack(
    obj: Any,
    *,
    what: str,
    error: type[InvalidInput] | None = None,
    each: str = "",
    reducer: Reducer | None = None,
) -> bytes:
    """Seal ``obj``. Code that isn't installed travels by value, as it is now.

    Args:
        obj: what travels.
        what: its name in an error, as in ``flow 'etl'``.
        error: what to raise; by default InvalidFlow for a callable, else InvalidInput.
        each: what an item of ``obj``, a mapping, is called in an error.
        reducer: asked first how an object travels. Without one a future is refused.

    Raises:
        InvalidInput: it can't be pickled; the message names the culprit and where it is used.
    """
    asked = reducer or _no_future
    try:
        chunks, packages = _dump(obj, asked)
    except INTERRUPTS:
        raise
    except BaseException as problem:  # also what no Exception is: it comes out of a __reduce__
        kind = error or (InvalidFlow if callable(obj) else InvalidInput)
        raise kind(unpicklable.explain(obj, what, problem, dumps=partial(_try, reducer=asked), each=each)) from problem
    header = {"python": PYTHON, "cloudpickle": cloudpickle.__version__, "packages": packages}
    return b"".join([json.dumps(header, separators=(",", ":")).encode(), b"\n", *chunks])


def unpack(data: bytes, *, each: str = "") -> Any:
    """Open what :func:`pack` sealed. This runs the sealed code: verify its signature first.

    Args:
        data: what :func:`pack` gave.
        each: what an item of the object, a mapping, is called in an error.

    Raises:
        Permanent: another Python minor version, or a package that is missing or differs here (cause ``config_error``).
        OpeningFailed: the sealed code raised, whatever it was (cause ``user_error``).
    """
    header, start = _split(data)
    there = header.get("python", "")
    if there != PYTHON:
        raise Permanent(
            f"sealed under Python {there}, but this process runs Python {PYTHON}: use the same minor version on both",
            cause=Cause.CONFIG_ERROR,
            reason="PythonVersion",
        )
    try:
        return class_loading.load(data, start)
    except INTERRUPTS:
        raise
    except BaseException as error:  # also what no Exception is: it comes out of a __setstate__, or of an import
        name = unreadable_item.item_of(data[start:]) if each else None
        raise _unopened(error, header, "" if name is None else f"{each} {repr_of(name)}: ") from error


def packages(data: bytes) -> dict[str, str]:
    """Versions, where it was sealed, of the packages that a sealed object names; opens nothing."""
    return dict(_split(data)[0].get("packages", {}))


def _split(data: bytes) -> tuple[Mapping[str, Any], int]:
    end = data.find(b"\n", 0, 65536)
    try:
        header = json.loads(data[: max(end, 0)])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise Permanent("not a sealed object: its header can't be read", cause=Cause.CONFIG_ERROR, reason="Header")
    return header, end + 1


def _unopened(error: BaseException, header: Mapping[str, Any], where: str) -> Permanent:
    """Return the error for an object whose opening raised ``error``."""
    if isinstance(error, ModuleNotFoundError):
        return _missing((error.name or "?").partition(".")[0], header, error, where)
    if isinstance(error, ImportError) or (isinstance(error, AttributeError) and not _is_own(error, header)):
        return _missing(_blamed_module(error), header, error, where)
    return OpeningFailed(f"{where}{describe_exception(error)}", cause=Cause.USER_ERROR, reason=type(error).__qualname__)


def _is_own(error: AttributeError, header: Mapping[str, Any]) -> bool:
    """Return True if an attribute was looked up in vain by the user's own code, in an object of a class that isn't
    installed: of a package, another version may be to blame."""
    holder = error.obj
    if holder is None or isinstance(holder, types.ModuleType | type):
        return False
    return type(holder).__module__.partition(".")[0] not in header.get("packages", {})


def _missing(top: str, header: Mapping[str, Any], error: BaseException, where: str) -> Permanent:
    versions = {**header.get("packages", {}), "cloudpickle": header.get("cloudpickle", "")}
    there = versions.get(top) or "of unknown version"
    here = by_value.version_of(top) or ("of unknown version" if top in sys.modules else "not installed")
    return Permanent(
        f"{where}needs package {top!r}: {there} where it was submitted, {here} here ({text_of(error)})",
        cause=Cause.CONFIG_ERROR,
        reason="MissingPackage",
    )


def _blamed_module(error: AttributeError | ImportError) -> str:
    """The top-level package in which a name was looked up in vain."""
    name = getattr(error, "name", None) if isinstance(error, ImportError) else None
    holder = getattr(error, "obj", None)
    if name is None and isinstance(holder, types.ModuleType):
        name = holder.__name__
    if name is None and holder is not None:
        name = getattr(holder, "__module__", None) or type(holder).__module__
    if name is None:  # pickle's own words: Can't get attribute 'x' on <module 'pkg' from '...'>
        name = text_of(error).partition("<module '")[2].partition("'")[0]
    return (name or "?").partition(".")[0]


def _no_future(obj: Any) -> None:
    """Dask pickles its futures, but nobody can ask one for its result in another process."""
    kind = type(obj)
    if kind.__name__ == "Future" and kind.__module__.startswith(("distributed.", "concurrent.futures.")):
        raise TypeError("a future can't be sent: gather it, and send its result")


def _dump(obj: Any, reducer: Reducer) -> tuple[list[bytes], dict[str, str]]:
    chunks = _Chunks()
    pickler = _pickled(obj, chunks, reducer)
    found = (by_value.package_of(name) for name in sorted(pickler.named))
    return chunks.parts, dict(one for one in found if one is not None)


def _try(obj: Any, check: Callable[[], None], *, reducer: Reducer) -> None:
    """Pickle ``obj`` for nothing; ``check`` is called with each piece, and may raise."""
    _pickled(obj, _Nowhere(check), reducer)


def _pickled(obj: Any, file: _File, reducer: Reducer) -> _Pickler:
    with _lock, _bounded():
        pickler = _Pickler(file, reducer)
        with pickler.registered():
            pickler.dump(obj)
    return pickler


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Let nested calls end in an error, not in a crash: pickling nests calls of C, also where a flow allowed itself
    more calls of Python than a stack of C holds."""
    limit = sys.getrecursionlimit()
    if limit > _DEEPEST:
        with contextlib.suppress(RecursionError):  # its caller is deeper than that already
            sys.setrecursionlimit(_DEEPEST)
    try:
        yield
    finally:
        if limit > _DEEPEST:
            sys.setrecursionlimit(limit)


class _File(Protocol):
    def write(self, data: Any) -> int: ...


class _Nowhere:
    """Keeps nothing of what a pickler writes."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def write(self, data: Any) -> int:
        self._check()
        return len(data)


class _Chunks:
    """Collects what a pickler writes; a large bytes object is kept, not copied."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self.parts.append(data if type(data) is bytes else bytes(data))
        return len(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Registers each module it meets for travel by value, if it has to, and notes the modules it names."""

    def __init__(self, file: _File, reducer: Reducer) -> None:
        super().__init__(file, protocol=5)
        self._reducer = reducer
        self.named: set[str] = set()
        self._added: list[types.ModuleType] = []

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Leave the process's register as it was."""
        try:
            yield
        finally:
            for module in self._added:
                cloudpickle.unregister_pickle_by_value(module)

    def reducer_override(self, obj: Any) -> Any:
        name = obj.__name__ if isinstance(obj, types.ModuleType) else getattr(obj, "__module__", None)
        if type(name) is str and name not in self.named:
            self._note(name)
        if isinstance(obj, types.CodeType):
            return code_objects.reduced(obj, self.dispatch_table[types.CodeType])
        if (asked := self._reducer(obj)) is not None:
            return asked
        own = exceptions.reduced(obj) if isinstance(obj, BaseException) else None
        return super().reducer_override(obj) if own is None else own

    def _note(self, name: str) -> None:
        self.named.add(name)
        if by_value.by_value(name) and name not in cloudpickle.list_registry_pickle_by_value():
            module = sys.modules[name]
            if module.__name__ == name:
                cloudpickle.register_pickle_by_value(module)
                self._added.append(module)
