"""Pickled exceptions: they open whatever their constructor takes."""

from __future__ import annotations

import copyreg
from typing import Any

import pytest

from dispatcher.serialization import pack, unpack


class Worded(Exception):
    def __init__(self, name: str, *, code: int) -> None:
        super().__init__(f"no {name}")
        self.code = code


class Derived(Worded):
    def __init__(self) -> None:
        super().__init__("luck", code=7)


class Gone(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)


class Leaves(SystemExit):
    def __init__(self, code: int) -> None:
        super().__init__(code + 1)


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class Own(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a + b)
        self.parts = (a, b)

    def __reduce__(self) -> Any:
        return type(self), self.parts


@pytest.mark.parametrize("dask", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        Worded("name", code=3),
        Derived(),
        Gone("/there"),
        Leaves(3),
        Slotted(4),
        Own(1, 2),
        KeyError("x"),
        OSError(2, "x"),
    ],
    ids=repr,
)
def test_exceptions_open_whatever_their_constructor_takes(
    error: BaseException, dask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dask:  # Dask has tblib pickle all exceptions; the process that opens them may have neither
        support = pytest.importorskip("tblib.pickling_support")
        monkeypatch.setitem(copyreg.dispatch_table, type(error), support.pickle_exception)
    error.add_note("noted")
    sealed = pack(error, subject="it")
    assert b"tblib" not in sealed
    again = unpack(sealed)
    assert type(again) is type(error)
    assert (str(again), again.args, repr(again)) == (str(error), error.args, repr(error))
    for name in ("code", "errno", "filename"):
        assert getattr(again, name, None) == getattr(error, name, None)
