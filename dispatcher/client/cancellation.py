"""The transition of a cancel, as ``Run.cancel`` commits it."""

from __future__ import annotations

from dispatcher.errors import InvalidInput
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.runs.transitions import request_cancel


class Cancellation:
    """A cancel, called once more if the record has changed since it was read, or if no reply came.

    Attributes:
        effective: True if this cancel is what cancels the run; final after the last call.
    """

    def __init__(self) -> None:
        self.effective = self._requested = False

    def __call__(self, record: Record, now: float) -> Change | None:
        change = request_cancel(record, now)
        self.effective = change is not None or (self._requested and record.state in {State.CANCELLING, State.CANCELLED})
        self._requested = self._requested or change is not None
        if record.terminal and not self.effective:
            raise InvalidInput(f"run {record.id} can't be cancelled: it is {record.state} already")
        return change
