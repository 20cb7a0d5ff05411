"""The termination message: the end of an attempt in a file that its container leaves behind, in case no report arrives.

The runner writes it to the file that ``DISPATCHER__RUN__LAST_WORDS`` names (Kubernetes' termination log), backends read
it. It holds state, cause and their explanation, never a result.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, fields
from typing import Any

from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause

#: Most bytes of a message; the containers of a pod share 12 KiB.
MOST = 4096

_CUT = "…"
_TEXTS = {"reason": 200, "message": 1200}  # most bytes of each


@dataclass(frozen=True, kw_only=True)
class TerminationMessage:
    """The end of an attempt. ``reported`` is True if the supervisor got a report; otherwise this message is the only
    source."""

    state: str
    cause: str | None = None
    reported: bool = False
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    on_exit: str | None = None
    run: str = ""
    attempt: int = 0
    traceback: str = ""

    @classmethod
    def of(
        cls, outcome: Outcome, *, run: str, attempt: int, reported: bool = False, on_exit: ExitCall | None = None
    ) -> TerminationMessage:
        """Return the message of an attempt that ended with ``outcome``."""
        return cls(
            state=str(outcome.state),
            cause=None if outcome.cause is None else str(outcome.cause),
            reported=reported,
            reason=outcome.reason,
            message=outcome.message,
            exit_code=outcome.exit_code,
            on_exit=None if on_exit is None else str(on_exit),
            run=run,
            attempt=attempt,
            traceback=outcome.traceback,
        )

    def outcome(self) -> Outcome:
        """Return the outcome to record if nothing was reported: a success without its result counts as lost."""
        if self.cause is None:
            message = (
                "the flow returned, but its result never arrived: its runner could not reach Redis, or its report was "
                "deleted there"
            )
            return Outcome(cause=Cause.RESULT_MISSING, reason=self.state, message=message, exit_code=self.exit_code)
        return Outcome(
            cause=Cause(self.cause),
            reason=self.reason,
            message=self.message,
            exit_code=self.exit_code,
            traceback=self.traceback,
        )

    def to_json(self) -> str:
        """Return JSON of at most :data:`MOST` bytes: long texts are cut at their end, a traceback at its beginning."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, most in _TEXTS.items():
            data[name] = _head(data[name], most)
        trace = data.pop("traceback")
        room = MOST - len(_dumped({**data, "traceback": ""}))
        return _dumped({**data, "traceback": _tail(trace, room)}).decode()

    @classmethod
    def parse(cls, text: str) -> TerminationMessage | None:
        """Parse what :meth:`to_json` returned; None for any other text, such as one that the flow itself wrote."""
        try:
            data = json.loads(text)
            values = {field.name: data[field.name] for field in fields(cls)}
            if values["cause"] is not None:
                Cause(values["cause"])
            return cls(**values)
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, path: str) -> None:
        """Write the message to ``path``, replacing an earlier one. Do nothing if the path is empty or not writable."""
        if not path:
            return
        with contextlib.suppress(OSError):  # there is no other place to report it
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                os.write(descriptor, self.to_json().encode())
            finally:
                os.close(descriptor)


def write_message(outcome: Outcome, *, reported: bool = False) -> None:
    """Write the message of this container's attempt by its variables alone, which may be missing or wrong."""
    variables = os.environ.get
    run, number = variables("DISPATCHER__RUN__ID", ""), variables("DISPATCHER__RUN__ATTEMPT", "")
    attempt = int(number) if number.isdecimal() else 0
    message = TerminationMessage.of(outcome, run=run, attempt=attempt, reported=reported)
    message.write(variables("DISPATCHER__RUN__LAST_WORDS", ""))


def left_message() -> TerminationMessage | None:
    """Return the message that this container's runner has written so far; None if there is none that can be read."""
    path = os.environ.get("DISPATCHER__RUN__LAST_WORDS", "")
    if not path:
        return None
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib
        return TerminationMessage.parse(file.read(2 * MOST))
    return None


def clear_message() -> None:
    """Take the message of this container's attempt back. Do nothing if its file isn't writable."""
    path = os.environ.get("DISPATCHER__RUN__LAST_WORDS", "")
    if path:
        with contextlib.suppress(OSError):
            os.truncate(path, 0)


def _dumped(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _size(text: str) -> int:
    return len(_dumped({"": text})) - len(_dumped({"": ""}))


def _head(text: str, most: int) -> str:
    if _size(text) <= most:
        return text
    head = text[:most]
    while head and _size(head + _CUT) > most:
        head = head[: -max(1, (_size(head + _CUT) - most) // 6)]
    return head + _CUT


def _tail(text: str, most: int) -> str:
    if _size(text) <= most:
        return text
    tail = text[-most:]
    while tail and _size(_CUT + tail) > most:
        tail = tail[max(1, (_size(_CUT + tail) - most) // 6) :]
    return _CUT + tail if tail else ""
