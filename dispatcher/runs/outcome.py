"""The end of an attempt: its outcome, and the progress of its ``on_exit``. Stored in the run's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from dispatcher.runs.states import Cause, State, state_of
from dispatcher.runs.value import Value
from dispatcher.support.parsing import HIGHEST, Fields, word


class ExitCall(StrEnum):
    """The progress of the environment's ``on_exit`` for the current attempt."""

    NONE = "none"  #: the environment has none
    WAITING = "waiting"  #: the runner will call it after the flow
    DUE = "due"  #: the runner died before: a fresh process will call it
    BEGUN = "begun"  #: it was started
    CALLED = "called"  #: it returned
    RAISED = "raised"  #: it raised
    INTERRUPTED = "interrupted"  #: it was started and did not end
    NOT_CALLED = "not called"  #: no process could call it
    UNKNOWN = "unknown"  #: a word of another release


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an attempt. If ``cause`` is None it succeeded, with ``result``.

    ``reason`` is the reason word of the infrastructure, or the name of the exception's type; ``message`` is a sentence.
    """

    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    traceback: str = ""
    log_tail: tuple[str, ...] = ()
    report: str = ""  #: what the infrastructure still told after a crash, in several lines
    result: Value | None = None
    exception: Value | None = None
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: fields of another release, unchanged

    @property
    def state(self) -> State:
        """The terminal state of an attempt that ends so."""
        return state_of(self.cause)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        data: dict[str, Any] = {
            name: value for name in _OWN_FIELDS if (value := getattr(self, name)) not in (None, "", ())
        }
        for name in ("result", "exception"):
            if name in data:
                data[name] = data[name].to_json()
        if not self.others:
            return data
        others = {name: value for name, value in self.others.items() if name != "cause"}
        return {**data, **(self.others if self.cause is Cause.UNKNOWN else others)}

    @classmethod
    def from_json(cls, data: Any) -> Outcome:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no outcome.
        """
        parsed = Fields(data, "outcome")
        cause = None if parsed.data.get("cause") is None else word(Cause, parsed.get("cause"), "outcome: cause")
        foreign_cause = cause is Cause.UNKNOWN and parsed.get("cause") != Cause.UNKNOWN
        code = parsed.data.get("exit_code")
        return cls(
            cause=cause,
            reason=parsed.text("reason", ""),
            message=parsed.text("message", ""),
            exit_code=None if code is None else parsed.whole("exit_code", least=-HIGHEST),
            traceback=parsed.text("traceback", ""),
            log_tail=parsed.texts("log_tail", ()),
            report=parsed.text("report", ""),
            result=None if parsed.data.get("result") is None else Value.from_json(parsed.get("result")),
            exception=None if parsed.data.get("exception") is None else Value.from_json(parsed.get("exception")),
            others=parsed.but(name for name in _OWN_FIELDS if name != "cause" or not foreign_cause),
        )


_OWN_FIELDS = tuple(f.name for f in fields(Outcome) if f.name != "others")
