"""Results and exceptions of flows in containers, passed on unopened.

A flow shares its process with the code that writes its answer, so an answer may hold any bytes. A worker passes a
pickle on as the run's result or exception, sealed for that run, and never opens it; the program that calls ``result()``
does, or refuses to. Made by :mod:`dispatcher.storage.answer`; :func:`open_result` is for programs that run a flow
directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dispatcher.errors import DispatcherError, InvalidInput


@dataclass(frozen=True)
class Unopened:
    """A result whose bytes are, as the flow claims, a pickle of :func:`~dispatcher.serialization.pack`."""

    data: bytes = field(repr=False)


class RaisedInside(DispatcherError, RuntimeError):
    """The flow raised in a container, or couldn't be loaded there.

    Attributes:
        kind: name of the exception's class.
        message: its message.
        traceback: text of its traceback.
        loaded: True if the flow had been loaded.
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
    """Return the result of ``call``, opened here. For programs that run a flow directly and trust the place it ran in.

    Raises:
        InvalidInput: the result is a pickle, and ``DISPATCHER__RESULTS__PLAIN`` refuses those.
        RaisedInside: the flow raised, and its exception can't be opened or ``DISPATCHER__RESULTS__PLAIN`` refuses it.
        Permanent: the result can't be opened in this process.
        Exception: the flow's own.
    """
    try:
        result = call()
    except RaisedInside as error:
        raise _users_exception(error) from None
    if not isinstance(result, Unopened):
        return result
    if _is_refused():
        raise InvalidInput(
            f"the flow's result isn't JSON but a Python object ({len(result.data):,} bytes), and opening it runs what "
            "the flow put into it: DISPATCHER__RESULTS__PLAIN refuses that; unset it if you trust flow and image"
        )
    from dispatcher.serialization.pickles import unpack

    return unpack(result.data)


def _users_exception(error: RaisedInside) -> BaseException:
    """Return the flow's own exception, or ``error`` if that can't or must not be opened."""
    if error.data is None or _is_refused():
        return error
    from dispatcher.serialization.pickles import unpack

    try:
        own = unpack(error.data)
    except Exception as problem:  # the exception's own code may raise anything while it is opened
        error.add_note(f"It can't be opened here: {problem}")
        return error
    if not isinstance(own, Exception):  # a SystemExit of the flow must not end the program that ran it
        return error
    own.add_note(f"Where the flow ran:\n{error.traceback.rstrip()}")
    return own


def _is_refused() -> bool:
    from dispatcher.settings import Settings

    return Settings.load().results.plain
