"""The loss of one worker of a run's own cluster: how its event and the run's record have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.runs.cluster import is_worker_name
from dispatcher.runs.states import Cause
from dispatcher.support.parsing import HIGHEST, Fields, word

#: Most characters kept of a message.
LONGEST_MESSAGE = 500


@dataclass(frozen=True, kw_only=True)
class WorkerLoss:
    """A worker that left the cluster unasked, or whose container ended before it joined.

    ``reason`` is the infrastructure's own word, ``message`` its sentence; both come from outside.
    """

    name: str
    joined: bool = True
    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None

    @property
    def text(self) -> str:
        """The loss as one sentence. Not escaped."""
        head = str(self.cause or "lost")
        if self.exit_code is not None:
            head += f", exit code {self.exit_code}"
        when = "" if self.joined else " before it joined"
        return f"worker {self.name}{when}: {head}{f': {self.message}' if self.message else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        data: dict[str, Any] = {"worker": self.name, "joined": self.joined, "cause": self.cause, "reason": self.reason}
        data |= {"message": self.message[:LONGEST_MESSAGE], "exit_code": self.exit_code}
        return {name: value for name, value in data.items() if value not in (None, "")}

    @classmethod
    def from_json(cls, data: Any) -> WorkerLoss:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no loss.
        """
        fields = Fields(data, "lost worker")
        name = fields.name("worker")
        if not is_worker_name(name):
            raise Malformed("lost worker: its name must be one such as w1")
        has_code, has_cause = fields.data.get("exit_code") is not None, fields.data.get("cause") is not None
        return cls(
            name=name,
            joined=fields.flag("joined", True),
            cause=word(Cause, fields.get("cause"), "lost worker: cause") if has_cause else None,
            reason=fields.text("reason", ""),
            message=fields.text("message", ""),
            exit_code=fields.whole("exit_code", least=-HIGHEST) if has_code else None,
        )


def losses_of(data: Mapping[str, Any]) -> tuple[WorkerLoss, ...]:
    """Return the losses that an event tells of; those that can't be read are left out."""
    losses = []
    for loss in data.get("losses") or ():
        try:
            losses.append(WorkerLoss.from_json(loss))
        except Malformed:
            continue
    return tuple(losses)
