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
    WAITING = "waiting"  #: to be called by the runner after the flow
    DUE = "due"  #: the runner died first: a fresh process is to call it
    BEGUN = "begun"  #: it was started
    CALLED = "called"  #: it returned
    RAISED = "raised"  #: it raised
    INTERRUPTED = "interrupted"  #: it was started and did not end
    NOT_CALLED = "not called"  #: nobody could call it
    UNKNOWN = "unknown"  #: a word of another release


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an attempt: ``cause`` None is success, with ``result``; else the facts of the end.

    ``reason`` is the raw reason word of the infrastructure or the exception's type name, ``message`` a sentence.
    """

    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    traceback: str = ""
    log_tail: tuple[str, ...] = ()
    result: Value | None = None
    exception: Value | None = None
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: what another release said, as it came

    @property
    def state(self) -> State:
        """The terminal state that it means."""
        return state_of(self.cause)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        data: dict[str, Any] = {name: v for name in _OF_OUTCOME if (v := getattr(self, name)) not in (None, "", ())}
        for name in ("result", "exception"):
            if name in data:
                data[name] = data[name].to_json()
        if not self.others:
            return data
        theirs = {name: value for name, value in self.others.items() if name != "cause"}
        return {**data, **(self.others if self.cause is Cause.UNKNOWN else theirs)}

    @classmethod
    def from_json(cls, data: Any) -> Outcome:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        given = Fields(data, "outcome")
        cause = None if given.data.get("cause") is None else word(Cause, given.get("cause"), "outcome: cause")
        theirs = cause is Cause.UNKNOWN and given.get("cause") != Cause.UNKNOWN
        code = given.data.get("exit_code")
        return cls(
            cause=cause,
            reason=given.text("reason", ""),
            message=given.text("message", ""),
            exit_code=None if code is None else given.whole("exit_code", least=-HIGHEST),
            traceback=given.text("traceback", ""),
            log_tail=given.texts("log_tail", ()),
            result=None if given.data.get("result") is None else Value.from_json(given.get("result")),
            exception=None if given.data.get("exception") is None else Value.from_json(given.get("exception")),
            others=given.but(name for name in _OF_OUTCOME if name != "cause" or not theirs),
        )


_OF_OUTCOME = tuple(f.name for f in fields(Outcome) if f.name != "others")
