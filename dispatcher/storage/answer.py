"""The answer of a flow in another process or container: a line of JSON with the outcome, then the result's bytes.

Written by :mod:`dispatcher.storage.child_process`. The reader doesn't trust an answer, because the flow may have
written it itself: it parses JSON, truncates texts, and passes a pickle on unopened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dispatcher.errors import INTERRUPTS, DispatcherError
from dispatcher.serialization.unopened import RaisedInside, Unopened, open_result

#: Most bytes of the line of JSON.
LONGEST_LINE = 2**20

#: Most characters of the texts in it.
_LONGEST_TYPE, _LONGEST_MESSAGE, _LONGEST_TRACEBACK = 200, 2000, 64 * 1024

_RETURNED, _RAISED, _NOT_LOADED = "returned", "raised", "not loaded"
_JSON, _PICKLE, _NOTHING = "json", "pickle", ""


class ChildDied(DispatcherError, RuntimeError):
    """The flow's process or container ended without a readable answer."""


@dataclass(frozen=True)
class Runner:
    """A callable that runs a flow elsewhere with the environment variables given to it.

    Returned by :meth:`Storage.get_env_runner`.

    Calling it opens the result (:func:`~dispatcher.serialization.unopened.open_result`). ``unopened`` doesn't: it
    returns JSON values as they are and anything else as :class:`~dispatcher.serialization.unopened.Unopened`, and
    raises :class:`~dispatcher.serialization.unopened.RaisedInside` in place of the flow's exception. Workers call
    ``unopened``.
    """

    unopened: Callable[[Mapping[str, str]], Any]

    def __call__(self, variables: Mapping[str, str]) -> Any:
        return open_result(partial(self.unopened, variables))


def encode_result(result: Any) -> bytes:
    """Return the answer of a flow that returned ``result``."""
    from dispatcher.serialization import pack
    from dispatcher.serialization.values import as_json

    text = as_json(result)
    if text is not None:
        return _answer(text, flow=_RETURNED, codec=_JSON)
    try:
        return _answer(pack(result, subject="the flow's answer"), flow=_RETURNED, codec=_PICKLE)
    except DispatcherError as error:
        return encode_exception(ChildDied(f"the flow ended, but its answer can't travel: {error}"), loaded=True)


def encode_exception(error: BaseException, *, loaded: bool) -> bytes:
    """Return the answer of a flow that raised ``error``, or that couldn't be ``loaded`` because of it."""
    from dispatcher.serialization import pack
    from dispatcher.support.tracebacks import message_of, trace_of

    fields = {
        "flow": _RAISED if loaded else _NOT_LOADED,
        "type": type(error).__qualname__,
        "message": message_of(error),
        "traceback": trace_of(error),
    }
    try:
        data = pack(error, subject="the flow's exception")
    except (DispatcherError, *INTERRUPTS):  # a __reduce__ may raise an interrupt, but the flow has ended
        return _answer(b"", codec=_NOTHING, **fields)
    return _answer(data, codec=_PICKLE, **fields)


def decode(data: bytes) -> Any:
    """Return the result in an answer: a JSON value, or :class:`Unopened`.

    Raises:
        RaisedInside: the flow raised, or couldn't be loaded.
        ChildDied: the bytes are no answer.
    """
    line, _, body = data.partition(b"\n")
    fields = _object(line) if len(line) <= LONGEST_LINE else {}
    match fields.get("flow"), fields.get("codec"):
        case str(outcome), str(codec) if outcome == _RETURNED and codec in {_JSON, _PICKLE}:
            return _value(body) if codec == _JSON else Unopened(body)
        case str(outcome), str(codec) if outcome in {_RAISED, _NOT_LOADED} and codec in {_PICKLE, _NOTHING}:
            raise RaisedInside(
                _text(fields.get("type"))[:_LONGEST_TYPE] or "Exception",
                _text(fields.get("message"))[:_LONGEST_MESSAGE],
                traceback=_text(fields.get("traceback"))[-_LONGEST_TRACEBACK:],
                loaded=outcome == _RAISED,
                data=body if codec == _PICKLE else None,
            )
    raise ChildDied(
        "the flow ended, but its answer can't be read: the flow wrote it itself, or flow-dispatcher is of another "
        "release there"
    )


def _answer(body: bytes, **fields: str) -> bytes:
    return json.dumps(fields).encode() + b"\n" + body


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _value(body: bytes) -> Any:
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise ChildDied(f"the flow ended, but its result can't be read: it isn't JSON ({error})") from None


def _text(value: Any) -> str:
    """Return ``value`` if it is a text, without lone surrogates, which can't be stored; else an empty text."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
