"""Which causes are repeated, how often and after how long."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.runs.retry import DEFAULT_ON, FREE, FREE_LIMIT, Retry, Verdict
from dispatcher.runs.states import Cause


def test_success_and_cancel_are_never_repeated() -> None:
    assert Retry(5).after(None, used=0, free_used=0, seed="") == Verdict(repeat=False)
    assert not Retry(5).after(Cause.CANCELLED, used=0, free_used=0, seed="").repeat


def test_none_repeats_nothing_whatever_the_cause() -> None:
    for cause in Cause:
        assert not Retry(0).after(cause, used=0, free_used=0, seed="").repeat


def test_an_int_repeats_the_default_causes_only() -> None:
    repeated = {cause for cause in Cause if Retry.of(1).after(cause, used=0, free_used=0, seed="").repeat}
    assert repeated == DEFAULT_ON


def test_count_bounds_repetitions() -> None:
    policy = Retry(2)
    assert policy.after(Cause.USER_ERROR, used=1, free_used=0, seed="").repeat
    assert not policy.after(Cause.USER_ERROR, used=2, free_used=0, seed="").repeat


@pytest.mark.parametrize("cause", sorted(FREE))
def test_infrastructure_causes_use_up_no_retry_ten_times(cause: Cause) -> None:
    policy = Retry(1)
    assert policy.after(cause, used=1, free_used=FREE_LIMIT - 1, seed="").free
    assert not policy.after(cause, used=1, free_used=FREE_LIMIT, seed="").repeat
    assert policy.after(cause, used=0, free_used=FREE_LIMIT, seed="") == Verdict(repeat=True, delay=0.0, free=False)


def test_delay_grows_by_backoff_and_stays_within_jitter() -> None:
    policy = Retry(5, delay=10, backoff=3, jitter=0.1)
    for used, middle in enumerate((10, 30, 90)):
        delays = {policy.after(Cause.USER_ERROR, used=used, free_used=0, seed=str(n)).delay for n in range(50)}
        assert len(delays) > 40
        assert all(0.9 * middle <= delay <= 1.1 * middle for delay in delays)


def test_round_trip() -> None:
    policy = Retry(3, delay=1.5, backoff=1, jitter=0.5, on=["oom_killed", Cause.QUOTA])
    assert Retry.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": -1}, "count must be an integer of at least 0, got -1"),
        ({"count": True}, "got True"),
        ({"count": 1, "delay": -2}, "delay must be a number"),
        ({"count": 1, "backoff": 0.5}, "backoff must be a number from 1"),
        ({"count": 1, "jitter": 2}, "jitter must be a number"),
        ({"count": 1, "on": ["oom"]}, "unknown cause 'oom'"),
        ({"count": 1, "on": ["cancelled"]}, "cancelled in on= can't be repeated"),
    ],
)
def test_bad_policies_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Retry(**arguments)
