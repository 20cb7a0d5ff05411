"""The retry policy: causes, counts and delays."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.runs.retry import DEFAULT_ON, FREE, FREE_LIMIT, LONGEST, MOST, Retry, RetryDecision
from dispatcher.runs.states import Cause


def test_success_and_cancel_are_never_repeated() -> None:
    assert Retry(5).after(None, used=0, free_used=0, seed="") == RetryDecision(repeat=False)
    assert not Retry(5).after(Cause.CANCELLED, used=0, free_used=0, seed="").repeat


def test_zero_repeats_nothing_whatever_the_cause() -> None:
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
    assert policy.after(cause, used=0, free_used=FREE_LIMIT, seed="") == RetryDecision(
        repeat=True, delay=0.0, free=False
    )


def test_delay_grows_by_backoff_and_stays_within_jitter() -> None:
    policy = Retry(5, delay=10, backoff=3, jitter=0.1)
    for used, middle in enumerate((10, 30, 90)):
        delays = {policy.after(Cause.USER_ERROR, used=used, free_used=0, seed=str(n)).delay for n in range(50)}
        assert len(delays) > 40
        assert all(0.9 * middle <= delay <= 1.1 * middle for delay in delays)


def test_a_delay_that_overflows_is_the_longest() -> None:
    policy = Retry(2000, delay=1)
    assert policy.after(Cause.USER_ERROR, used=1024, free_used=0, seed="").delay == LONGEST
    assert policy.after(Cause.USER_ERROR, used=1999, free_used=0, seed="").repeat
    assert Retry(2000).after(Cause.USER_ERROR, used=1999, free_used=0, seed="").delay == 0.0
    assert (
        Retry(MOST, delay=1, backoff=100, jitter=1).after(Cause.KILLED, used=9999, free_used=0, seed="").delay
        <= LONGEST
    )


def test_a_delay_grows_to_the_longest_and_no_further() -> None:
    policy = Retry(MOST, delay=3, backoff=2)
    pauses = [policy.pause(number) for number in range(30)]
    assert pauses[:3] == [3, 6, 12]
    assert pauses[21] == 3 * 2**21
    assert pauses[22:] == [LONGEST] * 8


def test_the_sum_of_all_delays() -> None:
    assert Retry(3, delay=2, backoff=1).pauses(3) == 6
    assert Retry(3, delay=2, backoff=2, jitter=0.5).pauses(3) == 1.5 * (2 + 4 + 8)
    assert Retry(MOST, delay=1).pauses(MOST) < LONGEST * MOST
    assert Retry(MOST).pauses(MOST) == 0


def test_causes_of_another_release_are_left_out() -> None:
    stored = {**Retry(3).to_json(), "on": ["killed", "struck_by_lightning"], "hue": "blue"}
    assert Retry.from_json(stored) == Retry(3, on=["killed"])


def test_round_trip() -> None:
    policy = Retry(3, delay=1.5, backoff=1, jitter=0.5, on=["oom_killed", Cause.QUOTA])
    assert Retry.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": -1}, "count must be an integer from 0 to 10,000, got -1"),
        ({"count": 10_001}, "count must be an integer from 0 to 10,000, got 10001"),
        ({"count": 10**5000}, "count must be an integer from 0 to 10,000, got a larger one"),
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
