"""Why a run with infrastructure waits, as its record holds it for people to see.

:func:`dispatcher.runs.infrastructure.note` writes it. What the wait means for the run's end isn't this, but
:attr:`~dispatcher.runs.record.Record.last_cause`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dispatcher.runs.states import Cause
from dispatcher.support.parsing import Fields, word

#: Most characters kept of a reason and of its message.
LONGEST_REASON = 64
LONGEST_MESSAGE = 500

#: Seconds until a text that has changed, or an earlier reason that has come back, is worth another write.
REFRESH_AFTER = 60.0

#: Most reasons of one wait that are remembered as noted.
MOST_NOTED = 8


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a run waits, as it was last noted.

    ``reason`` is the infrastructure's own word, ``message`` its sentence; both come from outside. ``at`` is in seconds
    since the epoch by the server's clock. ``noted`` are the reasons noted in this wait, ``cause/reason`` each: some
    alternate, such as ErrImagePull and ImagePullBackOff.
    """

    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    at: float = 0.0
    noted: tuple[str, ...] = ()

    @classmethod
    def of(cls, cause: Cause | None, reason: str, message: str) -> Wait:
        """Return what was observed, its texts truncated."""
        return cls(cause=cause, reason=reason[:LONGEST_REASON], message=message[:LONGEST_MESSAGE])

    @property
    def text(self) -> str:
        """The reason and the message as one sentence. Not escaped."""
        return sentence(self.facts)

    @property
    def key(self) -> str:
        """The cause and the reason, by which waits are told apart."""
        return f"{self.cause or ''}/{self.reason}"

    @property
    def facts(self) -> dict[str, str]:
        """The cause, the reason and the message, as an event has them. Empty ones are left out."""
        facts = {"cause": self.cause, "reason": self.reason, "message": self.message}
        return {name: str(value) for name, value in facts.items() if value}

    def is_news(self, before: Wait | None) -> bool:
        """Return True if this is worth a write after ``before``, the last note: it says something new.

        A text that has changed, or a reason that has come back in place of another one's cause, waits for
        :data:`REFRESH_AFTER`. A reason that alternates with another one of the same cause is none.
        """
        if before is None or self.key not in before.noted:
            return True
        same = self.key == before.key
        if same and not before.message:
            return bool(self.message)
        changed = self.cause is not before.cause or (same and self.message != before.message)
        return changed and self.at - before.at >= REFRESH_AFTER

    def after(self, before: Wait | None) -> Wait:
        """Return this as the note that follows ``before``."""
        noted = before.noted if before is not None else ()
        return replace(self, noted=noted if self.key in noted else (*noted, self.key)[-MOST_NOTED:])

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        return {**self.facts, "at": self.at, "noted": self.noted}

    @classmethod
    def from_json(cls, data: Any) -> Wait:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no wait.
        """
        fields = Fields(data, "wait")
        return cls(
            cause=None if fields.data.get("cause") is None else word(Cause, fields.get("cause"), "wait: cause"),
            reason=fields.text("reason", ""),
            message=fields.text("message", ""),
            at=fields.number("at", 0.0),
            noted=fields.texts("noted", ()),
        )


def sentence(facts: Mapping[str, Any]) -> str:
    """Return the facts of a wait, as :attr:`Wait.facts` or an event has them, as one sentence. Not escaped."""
    head, message = facts.get("reason") or facts.get("cause") or "", facts.get("message") or ""
    return f"{head}: {message}" if head and message and message != head else message or head
