"""Values that a flow gave in a container, carried on unopened to whoever asked for them.

A flow shares its process with what writes its answer, so it can give any bytes. A worker passes a pickle on as the
run's result or exception, sealed for that run, and never opens it: whoever calls ``result()`` does, or refuses to. Made
by :mod:`dispatcher.storage.answer`; :func:`open_result` is for programs that run a flow directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dispatcher.errors import DispatcherError, InvalidInput


@dataclass(frozen=True)
class Unopened:
    """A result: bytes that are said to be sealed as :func:`~dispatcher.serialization.pack` does it."""

    data: bytes = field(repr=False)


class RaisedInside(DispatcherError, RuntimeError):
    """The flow raised in a container, or couldn't be loaded there.

    Attributes:
        kind: the exception's class, by its name.
        message: its text.
        traceback: its traceback's text.
        loaded: whether the flow had been loaded.
        data: the exception itself, unopened; None if it couldn't travel.
    """

    def __init__(self, kind: str, message: str, *, traceback: str, loaded: bool, data: bytes | None) -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
        self.message = message
        self.traceback = traceback
        self.loaded = loaded
        self.data = data


def open_result(call: Callable[[], Any]) -> Any:
    """Return what ``call`` gives or raises, opened here: for programs that run a flow directly and trust where it ran.

    Raises:
        InvalidInput: the result is a pickle, and ``DISPATCHER__RESULTS__PLAIN`` refuses those.
        RaisedInside: the same of an exception, or one that can't be opened.
        Permanent: the result can't be opened in this process.
        Exception: the flow's own.
    """
    try:
        found = call()
    except RaisedInside as error:
        raise _own(error) from None
    if not isinstance(found, Unopened):
        return found
    if _is_refused():
        raise InvalidInput(
            f"the flow's result isn't JSON but a Python object ({len(found.data):,} bytes), and opening it runs what "
            "the flow put into it: DISPATCHER__RESULTS__PLAIN refuses that; unset it if you trust flow and image"
        )
    from dispatcher.serialization.pickles import unpack

    return unpack(found.data)


def _own(error: RaisedInside) -> BaseException:
    """The flow's own exception; what stands for it where it can't or mustn't be opened."""
    if error.data is None or _is_refused():
        return error
    from dispatcher.serialization.pickles import unpack

    try:
        own = unpack(error.data)
    except Exception as problem:  # whatever a foreign exception's own code raises while it is opened
        error.add_note(f"It can't be opened here: {problem}")
        return error
    if not isinstance(own, Exception):  # a SystemExit of the flow's isn't to end the program that ran it
        return error
    own.add_note(f"Where the flow ran:\n{error.traceback.rstrip()}")
    return own


def _is_refused() -> bool:
    from dispatcher.settings import Settings

    return Settings.load().results.plain
