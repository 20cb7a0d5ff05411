"""Packs an object for another process, and unpacks it there: a header line in JSON, then a pickle.

A code bundle may stand behind the pickle, where both are kept together (:func:`with_bundle`).

Submitters pack flows, callbacks and parameters; runners pack results and exceptions. Only a runner, or a program that
asks for a result, unpacks, after the signature was verified (:mod:`dispatcher.serialization.signing_keys`).
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import cloudpickle

from dispatcher.code.imports import imports_of
from dispatcher.errors import INTERRUPTS, InvalidFlow, InvalidInput, Malformed, OpeningFailed, Permanent
from dispatcher.runs.states import Cause
from dispatcher.serialization import (
    by_value,
    class_loading,
    code_objects,
    exceptions,
    main_files,
    reducers,
    unpicklable,
    unreadable_item,
)
from dispatcher.support.foreign_objects import describe_exception, repr_of, text_of
from dispatcher.support.interpreter import PYTHON

#: Nested calls that fit into the C stack while pickling.
_MAX_DEPTH = 5000

#: What pickle and cloudpickle take by name, or by value, without asking the object.
_NAMED_TYPES = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)

_LONGEST_HEADER = 2**20  # bytes

_lock = threading.RLock()  # cloudpickle's registry of modules is shared by all threads


#: Called with each object that isn't a plain value. Returns how to rebuild it, in the form of ``__reduce__``, or None.
Reducer = Callable[[Any], tuple[Any, ...] | None]


def pack(
    obj: Any,
    *,
    subject: str,
    error: type[InvalidInput] | None = None,
    each: str = "",
    reducer: Reducer | None = None,
) -> bytes:
    """Pack ``obj``. What a script or a notebook defines travels by value, as it is now.

    Modules of the project are only named: :func:`modules` says which, and their files travel in a bundle.

    Args:
        obj: the object.
        subject: the object's name in an error, as in ``flow 'etl'``.
        error: the class to raise; by default InvalidFlow for a callable, else InvalidInput.
        each: the name, in an error, of an item of ``obj``, a mapping, as in ``parameter``.
        reducer: decides first how an object travels. By default it refuses futures.

    Raises:
        InvalidInput: the object can't be pickled; names the part that can't and where it is used.
    """
    reducer = reducer or _refuse_futures
    try:
        chunks, named = _dump(obj, reducer)
    except INTERRUPTS:
        raise
    except BaseException as problem:  # a __reduce__ may raise anything
        kind = error or (InvalidFlow if callable(obj) else InvalidInput)
        raise kind(
            unpicklable.explain(obj, subject, problem, dumps=partial(_try, reducer=reducer), each=each)
        ) from problem
    header = {"python": PYTHON, "cloudpickle": cloudpickle.__version__, **named}
    return b"".join([json.dumps(header, separators=(",", ":")).encode(), b"\n", *chunks])


def unpack(data: bytes, *, each: str = "") -> Any:
    """Return the object that :func:`pack` packed. This runs the code in it: verify its signature first.

    Args:
        data: the bytes that :func:`pack` returned.
        each: the name, in an error, of an item of the object, a mapping.

    Raises:
        Permanent: another Python minor version, or a package that is missing or differs here (cause ``config_error``).
        OpeningFailed: the code in it raised (cause ``user_error``).
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
    except BaseException as error:  # a __setstate__ or an import may raise anything
        name = unreadable_item.item_of(data[start:]) if each else None
        raise _opening_error(error, header, "" if name is None else f"{each} {repr_of(name)}: ") from error


def packages(data: bytes) -> dict[str, str]:
    """Return the versions, where the object was packed, of the packages that it names. Opens nothing."""
    return dict(_split(data)[0].get("packages", {}))


def modules(data: bytes) -> frozenset[str]:
    """Return the modules of the project that an object names, and those that code in it imports. Opens nothing."""
    return frozenset(_split(data)[0].get("modules", ()))


def with_bundle(data: bytes, archive: bytes) -> bytes:
    """Return packed bytes with the code bundle behind them that holds the modules which they name."""
    header, start = _split(data)
    line = json.dumps({**header, "bundle": len(archive)}, separators=(",", ":")).encode()
    return b"".join([line, b"\n", memoryview(data)[start:], archive])


def bundle_in(data: bytes) -> bytes | None:
    """Return the code bundle behind packed bytes; None if there is none. Opens nothing.

    Raises:
        Malformed: the header says that there is a bundle, but there are fewer bytes.
    """
    header, start = _split(data)
    size = header.get("bundle")
    if size is None:
        return None
    if type(size) is not int or not 0 < size <= len(data) - start:
        raise Malformed(f"sealed object: its code bundle can't be read: {repr_of(size)} of {len(data):,} bytes")
    return data[-size:]


def _split(data: bytes) -> tuple[Mapping[str, Any], int]:
    end = data.find(b"\n", 0, _LONGEST_HEADER)
    try:
        header = json.loads(data[: max(end, 0)])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise Permanent("not a sealed object: its header can't be read", cause=Cause.CONFIG_ERROR, reason="Header")
    return header, end + 1


def _opening_error(error: BaseException, header: Mapping[str, Any], where: str) -> Permanent:
    """Return the error to raise when opening an object raised ``error``."""
    if isinstance(error, ModuleNotFoundError):
        return _missing_package((error.name or "?").partition(".")[0], header, error, where)
    if isinstance(error, ImportError) or (isinstance(error, AttributeError) and not _is_users_fault(error, header)):
        return _missing_package(_blamed_module(error), header, error, where)
    return OpeningFailed(f"{where}{describe_exception(error)}", cause=Cause.USER_ERROR, reason=type(error).__qualname__)


def _is_users_fault(error: AttributeError, header: Mapping[str, Any]) -> bool:
    """Return True if the missing attribute is one of an object whose class isn't installed.

    The object of an installed package may lack it because that package has another version here.
    """
    holder = error.obj
    if holder is None or isinstance(holder, types.ModuleType | type):
        return False
    return type(holder).__module__.partition(".")[0] not in header.get("packages", {})


def _missing_package(top: str, header: Mapping[str, Any], error: BaseException, where: str) -> Permanent:
    versions = {**header.get("packages", {}), "cloudpickle": header.get("cloudpickle", "")}
    there = versions.get(top) or "of unknown version"
    here = by_value.version_of(top) or ("of unknown version" if top in sys.modules else "not installed")
    return Permanent(
        f"{where}needs package {top!r}: {there} where it was submitted, {here} here ({text_of(error)})",
        cause=Cause.CONFIG_ERROR,
        reason="MissingPackage",
    )


def _blamed_module(error: AttributeError | ImportError) -> str:
    """Return the top-level package that lacks a name."""
    name = getattr(error, "name", None) if isinstance(error, ImportError) else None
    holder = getattr(error, "obj", None)
    if name is None and isinstance(holder, types.ModuleType):
        name = holder.__name__
    if name is None and holder is not None:
        name = getattr(holder, "__module__", None) or type(holder).__module__
    if name is None:  # pickle's message: Can't get attribute 'x' on <module 'pkg' from '...'>
        name = text_of(error).partition("<module '")[2].partition("'")[0]
    return (name or "?").partition(".")[0]


def _refuse_futures(obj: Any) -> None:
    """Raise for a future: Dask would pickle it, but its result isn't available in another process."""
    kind = type(obj)
    if kind.__name__ == "Future" and kind.__module__.startswith(("distributed.", "concurrent.futures.")):
        raise TypeError("a future can't be sent: gather it, and send its result")


def _dump(obj: Any, reducer: Reducer) -> tuple[list[bytes], dict[str, Any]]:
    """Return the pickle in chunks, and what its header says of packages and modules."""
    chunks = _Chunks()
    pickler = _pickled(obj, chunks, reducer)
    packages = (by_value.package_of(name) for name in sorted(pickler.named))
    modules = sorted(filter(by_value.travels_in_bundle, pickler.named | pickler.imported))
    header = {"packages": dict(package for package in packages if package is not None), "modules": modules}
    return chunks.parts, {name: value for name, value in header.items() if value or name == "packages"}


def _try(obj: Any, check: Callable[[], None], *, reducer: Reducer) -> None:
    """Pickle ``obj`` and discard the bytes. ``check`` is called for each piece, and may raise."""
    _pickled(obj, _Discard(check), reducer)


def _pickled(obj: Any, file: _File, reducer: Reducer) -> _Pickler:
    with _lock, _limited_depth():
        pickler = _Pickler(file, reducer)
        with pickler.registered():
            pickler.dump(obj)
    return pickler


@contextlib.contextmanager
def _limited_depth() -> Iterator[None]:
    """Lower the recursion limit, so that nesting ends in an error and not in a crash.

    Pickling nests calls in C. A flow may have raised Python's limit beyond the depth that fits into the C stack.
    """
    limit = sys.getrecursionlimit()
    if limit > _MAX_DEPTH:
        with contextlib.suppress(RecursionError):  # the caller is deeper than that already
            sys.setrecursionlimit(_MAX_DEPTH)
    try:
        yield
    finally:
        if limit > _MAX_DEPTH:
            sys.setrecursionlimit(limit)


class _File(Protocol):
    def write(self, data: Any) -> int: ...


class _Discard:
    """A file that discards its content."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def write(self, data: Any) -> int:
        self._check()
        return len(data)


class _Chunks:
    """A file that collects chunks. A large bytes object isn't copied."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self.parts.append(data if type(data) is bytes else bytes(data))
        return len(data)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Registers modules that must travel by value as it meets them, and collects the names of all modules."""

    def __init__(self, file: _File, reducer: Reducer) -> None:
        super().__init__(file, protocol=5)
        self._reducer = reducer
        self.named: set[str] = set()
        self.imported: set[str] = set()
        self._package = getattr(sys.modules.get("__main__"), "__package__", None) or ""
        self._added: list[types.ModuleType] = []

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Restore cloudpickle's registry of modules afterwards."""
        try:
            yield
        finally:
            for module in self._added:
                cloudpickle.unregister_pickle_by_value(module)

    def reducer_override(self, obj: Any) -> Any:
        name = obj.__name__ if isinstance(obj, types.ModuleType) else getattr(obj, "__module__", None)
        if type(name) is str and name not in self.named:
            self._add_module(name)
        if isinstance(obj, types.CodeType):
            self.imported |= imports_of(obj, self._package)
            return code_objects.reduce_code(obj, self.dispatch_table[types.CodeType])
        if (reduced := self._reducer(obj)) is not None:
            return reduced
        own = exceptions.reduce_exception(obj) if isinstance(obj, BaseException) else reducers.reduce_by_value(obj)
        if own is not None:
            return own
        common = super().reducer_override(obj)
        if common is NotImplemented:
            return self._checked(obj)
        if isinstance(obj, types.FunctionType):
            self.imported |= main_files.reduce_file_name(obj, common)
        return class_loading.with_slots(common, obj) if isinstance(obj, type) else common

    def _checked(self, obj: Any) -> Any:
        """Return what an object's own ``__reduce_ex__`` says.

        Raises:
            PicklingError: it says a name in a module that doesn't travel.
        """
        kind: Any = type(obj)
        default = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
        if default or isinstance(obj, _NAMED_TYPES) or kind in self.dispatch_table:
            return NotImplemented
        instructions = obj.__reduce_ex__(5)
        if isinstance(instructions, str):
            module = getattr(obj, "__module__", None) or "__main__"
            if module == "__main__" or by_value.travels_by_value(module):
                raise pickle.PicklingError(
                    f"it is pickled as the name {instructions!r} in {module}, which no other process has: define it in "
                    "a module of its own"
                )
        return instructions

    def _add_module(self, name: str) -> None:
        self.named.add(name)
        if by_value.travels_by_value(name) and name not in cloudpickle.list_registry_pickle_by_value():
            module = sys.modules[name]
            if module.__name__ == name:
                cloudpickle.register_pickle_by_value(module)
                self._added.append(module)
