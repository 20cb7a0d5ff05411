"""The ``__main__`` module of a flow that was defined in a script or a notebook and runs in another process.

Such a flow travels by value, with the names that it uses. While it runs, ``__main__`` has these names, so that pickle
and process pools find them: those that fork at once, those that spawn through a file that is written when they ask for
it. Used by :class:`~dispatcher.flows.flow.Flow`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

#: A program that a spawned process imports as its ``__main__``.
_PROGRAM = """from dispatcher.flows.main_module import restore

restore(globals(), {path!r})
"""

#: Attributes of a module that say where it lies; the flow's file need not be on this machine.
_OF_FILES = frozenset({"__file__", "__cached__", "__path__", "__spec__", "__loader__"})


class FlowMain(ModuleType):
    """A module whose names are the globals of a function, as they are at any time.

    Args:
        names: the globals.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__("__main__")
        self._names = names
        self._directory: Path | None = None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return self._names  # typing looks there for the names in annotations

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # multiprocessing asks before it spawns
            return self._program()
        if name not in _OF_FILES and name in self._names:
            return self._names[name]
        if name not in _OF_FILES and (cls := _classes().get(name)) is not None:
            return cls
        raise AttributeError(f"module '__main__' has no attribute {name!r}", name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*dir(ModuleType("__main__")), *self._names})

    def _program(self) -> str:
        """Write a program that defines the functions and classes of this module, and return its path."""
        from dispatcher.support import private_files

        if self._directory is None:
            directory = private_files.temporary_directory("dispatcher-main-")
            (directory / "names").write_bytes(_packed({**_classes(), **self._names}))
            (directory / "__main__.py").write_text(_PROGRAM.format(path=str(directory / "names")))
            self._directory = directory
        return str(self._directory / "__main__.py")

    def close(self) -> None:
        """Remove the program, if there is one."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def main_module_of(function: object) -> Iterator[None]:
    """Replace ``__main__`` while a function runs that another process's ``__main__`` has defined."""
    before = sys.modules.get("__main__")
    if (
        not isinstance(function, FunctionType)
        or function.__module__ != "__main__"
        or (before is not None and before.__dict__ is function.__globals__)
    ):
        yield
        return
    module = FlowMain(function.__globals__)
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        if before is not None and sys.modules.get("__main__") is module:
            sys.modules["__main__"] = before
        module.close()


def restore(names: dict[str, Any], path: str) -> None:
    """Define in a spawned process what the ``__main__`` of the flow's process has defined.

    Args:
        names: the globals of the process's main module.
        path: a file that :class:`FlowMain` wrote, which only this user can change.
    """
    from dispatcher.serialization import unpack

    names.update(unpack(Path(path).read_bytes()))


def _classes() -> dict[str, type]:
    """The classes of ``__main__`` that came with parameters, which the flow's code need not name."""
    from dispatcher.serialization.class_loading import classes_of_main

    return {name: cls for name, cls in classes_of_main().items() if "." not in name}


def _packed(names: dict[str, Any]) -> bytes:
    """Pack the functions and classes that ``__main__`` has defined, but for those that can't travel."""
    from dispatcher.errors import InvalidInput
    from dispatcher.serialization import pack

    packable: dict[str, Any] = {}
    for name, value in list(names.items()):
        if getattr(value, "__module__", None) == "__main__" and callable(value):
            with suppress(InvalidInput):
                pack(value, subject=name)
                packable[name] = value
    return pack(packable, subject="the names of __main__")
