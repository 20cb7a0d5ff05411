"""The retry policy: which causes are repeated, how often and after what delay. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.runs.states import Cause
from dispatcher.support.escaping import shown
from dispatcher.support.parsing import Fields, valid

#: Causes repeated by ``retries=n``.
DEFAULT_ON = frozenset(
    {
        Cause.USER_ERROR,
        Cause.WORKER_LOST,
        Cause.KILLED,
        Cause.EVICTED,
        Cause.PREEMPTED,
        Cause.SPOT_INTERRUPTED,
        Cause.NODE_LOST,
    }
)

#: Of the repeated causes, those that use up no retry.
FREE = frozenset({Cause.EVICTED, Cause.PREEMPTED, Cause.SPOT_INTERRUPTED, Cause.NODE_LOST})

#: How often a run may be repeated without using up a retry.
FREE_LIMIT = 10

#: Most repetitions of a policy, and the longest delay before one, in seconds (115 days).
MOST = 10_000
LONGEST = 1e7

_NEVER = frozenset({Cause.CANCELLED})
_WORDS = frozenset(str(cause) for cause in Cause)


@dataclass(frozen=True, kw_only=True)
class RetryDecision:
    """The decision on a retry. ``delay`` is in seconds; ``free`` means that it uses up no retry."""

    repeat: bool
    delay: float = 0.0
    free: bool = False


@dataclass(frozen=True)
class Retry:
    """A retry policy.

    Args:
        count: the number of further attempts, at most 10,000; 0 repeats nothing, whatever the cause.
        delay: seconds before the first repetition, at most 10,000,000.
        backoff: factor from 1 (constant) to 100 by which each further delay grows, up to 10,000,000 seconds.
        jitter: share of the delay by which it varies (0.1: ± 10 %), so that many runs aren't repeated at once.
        on: the causes that are repeated, as :class:`Cause` or their values.

    Raises:
        InvalidInput: a value is out of range, or a cause is unknown or can't be repeated.
    """

    count: int
    delay: float = 0.0
    backoff: float = 2.0
    jitter: float = 0.0
    on: frozenset[Cause] = field(default=DEFAULT_ON)

    def __init__(
        self,
        count: int,
        delay: float = 0.0,
        backoff: float = 2.0,
        jitter: float = 0.0,
        on: Iterable[Cause | str] = DEFAULT_ON,
    ) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST:
            given = shown(count) if not isinstance(count, int) or abs(count) < 1e15 else "a larger one"
            raise InvalidInput(f"retries: count must be an integer from 0 to {MOST:,}, got {given}")
        for name, value, least, most in (
            ("delay", delay, 0, LONGEST),
            ("backoff", backoff, 1, 100),
            ("jitter", jitter, 0, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidInput(f"retries: {name} must be a number from {least} to {most:g}, got {shown(value)}")
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "delay", float(delay))
        object.__setattr__(self, "backoff", float(backoff))
        object.__setattr__(self, "jitter", float(jitter))
        object.__setattr__(self, "on", _causes(on))

    @classmethod
    def of(cls, retries: int | Retry) -> Retry:
        """Return the policy for a value of ``retries=``: an int n is ``Retry(n)``."""
        return retries if isinstance(retries, Retry) else cls(retries)

    def after(self, cause: Cause | None, *, used: int, free_used: int, seed: str) -> RetryDecision:
        """Decide what follows an attempt that ended with ``cause``.

        Args:
            cause: why it ended; None is success.
            used: retries used up so far.
            free_used: repetitions so far that used up none.
            seed: text that makes the jitter reproducible.
        """
        if cause is None or self.count == 0 or cause not in self.on:
            return RetryDecision(repeat=False)
        free = cause in FREE and free_used < FREE_LIMIT
        if not free and used >= self.count:
            return RetryDecision(repeat=False)
        pause = self.pause(free_used if free else used) * (1 + self.jitter * _swing(seed))
        return RetryDecision(repeat=True, free=free, delay=min(pause, LONGEST))

    def pause(self, number: int) -> float:
        """Return the delay in seconds before a repetition, counted from 0, without jitter; at most :data:`LONGEST`."""
        try:
            return min(self.delay * self.backoff**number, LONGEST)
        except OverflowError:
            return LONGEST if self.delay else 0.0

    def pauses(self, count: int) -> float:
        """Return the seconds that the first ``count`` delays take together at most."""
        return _pauses(self, count) if self.delay else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        return {
            "count": self.count,
            "delay": self.delay,
            "backoff": self.backoff,
            "jitter": self.jitter,
            "on": sorted(self.on),
        }

    @classmethod
    def from_json(cls, data: Any) -> Retry:
        """Parse what :meth:`to_json` returns. Causes of another release are left out: no attempt ends with them here.

        Raises:
            Malformed: it is no policy.
        """
        parsed = Fields(data, "retries")
        return cls._valid(
            count=parsed.whole("count"),
            delay=parsed.number("delay", 0.0),
            backoff=parsed.number("backoff", 2.0),
            jitter=parsed.number("jitter", 0.0),
            on=[name for name in parsed.names("on", sorted(DEFAULT_ON)) if name in _WORDS],
        )

    @classmethod
    def _valid(cls, **values: Any) -> Retry:
        policy: Retry = valid(cls, "retries", **values)
        return policy


def _causes(on: Iterable[Cause | str]) -> frozenset[Cause]:
    if not isinstance(on, Iterable):
        raise InvalidInput(f"retries: on must be a list of causes, got {shown(on)}; leave it out for the usual ones")
    names = [on] if isinstance(on, str) else list(on)
    for name in names:
        if str(name) not in _WORDS:
            raise InvalidInput(f"retries: unknown cause {shown(name)} in on=; known are {', '.join(sorted(_WORDS))}")
    causes = frozenset(Cause(name) for name in names)
    if refused := causes & _NEVER:
        raise InvalidInput(f"retries: {', '.join(sorted(refused))} in on= can't be repeated")
    return causes


@lru_cache(maxsize=64)
def _pauses(policy: Retry, count: int) -> float:
    pauses = (policy.pause(number) * (1 + policy.jitter) for number in range(count))
    return sum(min(pause, LONGEST) for pause in pauses)


def _swing(seed: str) -> float:
    """Return a number in [-1, 1) that depends on the seed alone."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**63 - 1
