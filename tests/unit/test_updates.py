"""Transitions that another worker may take first."""

from __future__ import annotations

import pytest

from dispatcher.errors import LeasePassed, Refused, ServerUnavailable, UnknownRun
from workers.updates import try_update


def update(run_id: str, *, lease: int) -> str:
    return f"{run_id}/{lease}"


def raising(error: Exception) -> str:
    raise error


def test_the_result_is_returned() -> None:
    assert try_update(update, "r1", lease=1) == "r1/1"


@pytest.mark.parametrize("error", [Refused("closed"), UnknownRun("r1")])
def test_an_obsolete_transition_is_skipped(error: Exception) -> None:
    assert try_update(raising, error) is None


@pytest.mark.parametrize("error", [LeasePassed("shard"), ServerUnavailable("unavailable"), ValueError("bug")])
def test_other_errors_are_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        try_update(raising, error)
