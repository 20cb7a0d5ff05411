"""The one table of legal transitions between the states of a run. Used by :mod:`dispatcher.runs.transitions`."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.errors import Refused
from dispatcher.runs.states import TERMINAL, State

#: The states through which an attempt gets from acceptance to the flow.
PATH_TO_RUNNING = (State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING, State.RUNNING)

_ENDS = TERMINAL | {State.AWAITING_RETRY}

#: The one table of legal moves.
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.CLAIMED}) | (_ENDS - {State.SUCCEEDED}),
    State.CLAIMED: frozenset({State.PROVISIONING, State.QUEUED, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.PROVISIONING: frozenset({State.PENDING, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.PENDING: frozenset({State.RUNNING, State.CANCELLING}) | (_ENDS - {State.SUCCEEDED}),
    State.RUNNING: frozenset({State.CANCELLING, State.QUEUED}) | _ENDS,
    State.CANCELLING: TERMINAL,
    State.AWAITING_RETRY: frozenset({State.QUEUED, State.CANCELLED, State.CRASHED}),
    **dict.fromkeys((*TERMINAL, State.UNKNOWN), frozenset[State]()),
}


def advance(state: State, to: State) -> State:
    """Return ``to`` if the table allows the move from ``state``.

    Raises:
        Refused: the move isn't in :data:`TRANSITIONS`.
    """
    if to not in TRANSITIONS[state]:
        raise Refused(f"a run can't go from {state} to {to}")
    return to
