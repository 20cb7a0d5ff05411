"""Last words: how an attempt ended, in a file that its container leaves behind; for when no report came through.

Written by the runner where ``DISPATCHER__RUN__LAST_WORDS`` names a file (Kubernetes' termination log), read by
backends. Never a result: only state, cause and what explains them.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, fields
from typing import Any

from dispatcher.runs.record import ExitCall, Outcome
from dispatcher.runs.states import Cause

#: Most bytes; a pod's containers share 12 KiB.
MOST = 4096

_CUT = "…"
_TEXTS = {"reason": 200, "message": 1200}  # most bytes of each


@dataclass(frozen=True, kw_only=True)
class TerminationMessage:
    """``reported``: whether the run's record was told; else these words are all there is."""

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
        """Return the last words of an attempt that ended with ``outcome``."""
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
        """Return the outcome to record where nothing was reported: a success without its result is none."""
        if self.cause is None:
            message = "the flow returned, but its runner could not reach Redis to hand over the result"
            return Outcome(cause=Cause.RESULT_MISSING, reason=self.state, message=message, exit_code=self.exit_code)
        return Outcome(
            cause=Cause(self.cause),
            reason=self.reason,
            message=self.message,
            exit_code=self.exit_code,
            traceback=self.traceback,
        )

    def to_json(self) -> str:
        """At most :data:`MOST` bytes; texts are cut where that takes it, a traceback at its beginning."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, most in _TEXTS.items():
            data[name] = _head(data[name], most)
        trace = data.pop("traceback")
        room = MOST - len(_dumped({**data, "traceback": ""}))
        return _dumped({**data, "traceback": _tail(trace, room)}).decode()

    @classmethod
    def parse(cls, text: str) -> TerminationMessage | None:
        """The inverse of :meth:`to_json`; None for anything else, such as what a flow wrote there itself."""
        try:
            data = json.loads(text)
            given = {field.name: data[field.name] for field in fields(cls)}
            if given["cause"] is not None:
                Cause(given["cause"])
            return cls(**given)
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, path: str) -> None:
        """Leave them at ``path``, in the place of earlier ones; nowhere if it is empty, or can't be written."""
        if not path:
            return
        with contextlib.suppress(OSError):  # nobody is left to hear of it
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                os.write(descriptor, self.to_json().encode())
            finally:
                os.close(descriptor)


def _dumped(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _size(text: str) -> int:
    return len(_dumped({"": text})) - len(_dumped({"": ""}))


def _head(text: str, most: int) -> str:
    if _size(text) <= most:
        return text
    kept = text[:most]
    while kept and _size(kept + _CUT) > most:
        kept = kept[: -max(1, (_size(kept + _CUT) - most) // 6)]
    return kept + _CUT


def _tail(text: str, most: int) -> str:
    if _size(text) <= most:
        return text
    kept = text[-most:]
    while kept and _size(_CUT + kept) > most:
        kept = kept[max(1, (_size(_CUT + kept) - most) // 6) :]
    return _CUT + kept if kept else ""
