"""The answer of a flow in another process or in a container: a line of JSON that says how it ended, then the result or
the exception in bytes.

Whoever reads an answer doesn't believe who wrote it, for the flow may have written it itself: JSON is read, texts are
cut, and a pickle is handed on unopened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dispatcher.errors import INTERRUPTS, DispatcherError
from dispatcher.serialization.unopened import RaisedInside, Unopened, open_result

#: Most bytes of the line of JSON, and most characters of what it says.
LONGEST_LINE = 2**20
_KIND, _MESSAGE, _TRACEBACK = 200, 2000, 64 * 1024

_RETURNED, _RAISED, _NOT_LOADED = "returned", "raised", "not loaded"
_JSON, _PICKLE, _NOTHING = "json", "pickle", ""


class ChildDied(DispatcherError, RuntimeError):
    """The flow's process or container ended without an answer that can be read."""


@dataclass(frozen=True)
class Runner:
    """Runs a flow elsewhere, given all of its environment variables. What :meth:`Storage.get_env_runner` returns.

    Calling it opens the result (:func:`~dispatcher.serialization.unopened.open_result`). ``unopened`` doesn't: it
    returns JSON values as they are and anything else as :class:`~dispatcher.serialization.unopened.Unopened`, and
    raises :class:`~dispatcher.serialization.unopened.RaisedInside` in place of the flow's exception. Workers call
    ``unopened``.
    """

    unopened: Callable[[Mapping[str, str]], Any]

    def __call__(self, variables: Mapping[str, str]) -> Any:
        return open_result(partial(self.unopened, variables))


def returned(result: Any) -> bytes:
    """The answer of a flow that returned ``result``."""
    from dispatcher.serialization import pack
    from dispatcher.serialization.values import as_json

    text = as_json(result)
    if text is not None:
        return _answer(text, flow=_RETURNED, codec=_JSON)
    try:
        return _answer(pack(result, subject="the flow's answer"), flow=_RETURNED, codec=_PICKLE)
    except DispatcherError as error:
        return raised(ChildDied(f"the flow ended, but its answer can't travel: {error}"), loaded=True)


def raised(error: BaseException, *, loaded: bool) -> bytes:
    """The answer of a flow that raised ``error``, or could not be ``loaded`` because of it."""
    from dispatcher.serialization import pack
    from dispatcher.support.tracebacks import message_of, trace_of

    told = {
        "flow": _RAISED if loaded else _NOT_LOADED,
        "type": type(error).__qualname__,
        "message": message_of(error),
        "traceback": trace_of(error),
    }
    try:
        data = pack(error, subject="the flow's exception")
    except (DispatcherError, *INTERRUPTS):  # an interrupt came out of a __reduce__: the flow is over
        return _answer(b"", codec=_NOTHING, **told)
    return _answer(data, codec=_PICKLE, **told)


def read(data: bytes) -> Any:
    """The result: a JSON value, or :class:`Unopened`.

    Raises:
        RaisedInside: the flow raised, or couldn't be loaded.
        ChildDied: this is no answer.
    """
    line, _, body = data.partition(b"\n")
    told = _object(line) if len(line) <= LONGEST_LINE else {}
    match told.get("flow"), told.get("codec"):
        case str(how), str(codec) if how == _RETURNED and codec in {_JSON, _PICKLE}:
            return _value(body) if codec == _JSON else Unopened(body)
        case str(how), str(codec) if how in {_RAISED, _NOT_LOADED} and codec in {_PICKLE, _NOTHING}:
            raise RaisedInside(
                _text(told.get("type"))[:_KIND] or "Exception",
                _text(told.get("message"))[:_MESSAGE],
                traceback=_text(told.get("traceback"))[-_TRACEBACK:],
                loaded=how == _RAISED,
                data=body if codec == _PICKLE else None,
            )
    raise ChildDied(
        "the flow ended, but its answer can't be read: the flow wrote it itself, or flow-dispatcher is of another "
        "release there"
    )


def _answer(body: bytes, **told: str) -> bytes:
    return json.dumps(told).encode() + b"\n" + body


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _value(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise ChildDied(f"the flow ended, but its result can't be read: it isn't JSON ({error})") from None


def _text(value: Any) -> str:
    """``value`` where it is a text, without half characters, which nothing could store."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
