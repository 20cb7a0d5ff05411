"""The table of transitions, and the states of causes."""

from __future__ import annotations

import itertools

import pytest

from dispatcher.errors import Refused
from dispatcher.runs.states import TERMINAL, UNSTARTED, Cause, State, state_of
from dispatcher.runs.transition_table import PATH_TO_RUNNING, TRANSITIONS, advance


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_states_never_change(state: State) -> None:
    for to in State:
        with pytest.raises(Refused, match=f"from {state} to {to}"):
            advance(state, to)


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL - {State.UNKNOWN}))
def test_every_open_state_can_end(state: State) -> None:
    reachable: set[State] = set()
    todo = [state]
    while todo:
        for to in TRANSITIONS[todo.pop()] - reachable:
            reachable.add(to)
            todo.append(to)
    assert State.CANCELLED in reachable


def test_the_path_to_running_follows_the_table() -> None:
    for state, to in itertools.pairwise(PATH_TO_RUNNING):
        assert advance(state, to) is to


@pytest.mark.parametrize("state", sorted(UNSTARTED))
def test_nothing_succeeds_before_it_has_started(state: State) -> None:
    with pytest.raises(Refused):
        advance(state, State.SUCCEEDED)


def test_every_cause_has_its_state() -> None:
    assert state_of(None) is State.SUCCEEDED
    states = {cause: state_of(cause) for cause in Cause}
    assert states.pop(Cause.USER_ERROR) is State.FAILED
    assert states.pop(Cause.DEADLINE) is State.TIMED_OUT
    assert states.pop(Cause.CANCELLED) is State.CANCELLED
    assert set(states.values()) == {State.CRASHED}
