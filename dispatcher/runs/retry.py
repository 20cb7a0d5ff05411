"""When an attempt is repeated, and after how long. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.runs.states import Cause

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

_NEVER = frozenset({Cause.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows an attempt that ended with a cause. ``delay`` is in seconds."""

    repeat: bool
    delay: float = 0.0
    free: bool = False


@dataclass(frozen=True)
class Retry:
    """A retry policy.

    Args:
        count: how many further attempts; 0 repeats nothing, whatever the cause.
        delay: seconds before the first repetition.
        backoff: factor by which each further delay grows (1: constant).
        jitter: share of the delay by which it may vary (0.1: ± 10 %), so that many runs don't come back at once.
        on: causes that are repeated, as :class:`Cause` or their values.

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
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidInput(f"retries: count must be an integer of at least 0, got {count!r}")
        for name, value, least, most in (
            ("delay", delay, 0, 1e7),
            ("backoff", backoff, 1, 100),
            ("jitter", jitter, 0, 1),
        ):
            if not isinstance(value, int | float) or not least <= value <= most:
                raise InvalidInput(f"retries: {name} must be a number from {least} to {most:g}, got {value!r}")
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "delay", float(delay))
        object.__setattr__(self, "backoff", float(backoff))
        object.__setattr__(self, "jitter", float(jitter))
        object.__setattr__(self, "on", _causes(on))

    @classmethod
    def of(cls, retries: int | Retry) -> Retry:
        """The policy that ``retries=`` means: an int n is ``Retry(n)``."""
        return retries if isinstance(retries, Retry) else cls(retries)

    def after(self, cause: Cause | None, *, used: int, free_used: int, seed: str) -> Verdict:
        """Decide what follows an attempt that ended with ``cause``.

        Args:
            cause: why it ended; None is success.
            used: retries used up so far.
            free_used: repetitions so far that used up none.
            seed: text that makes the jitter reproducible.
        """
        if cause is None or self.count == 0 or cause not in self.on:
            return Verdict(repeat=False)
        free = cause in FREE and free_used < FREE_LIMIT
        if not free and used >= self.count:
            return Verdict(repeat=False)
        growth: float = self.backoff ** (free_used if free else used)
        return Verdict(repeat=True, free=free, delay=self.delay * growth * (1 + self.jitter * _swing(seed)))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        return {
            "count": self.count,
            "delay": self.delay,
            "backoff": self.backoff,
            "jitter": self.jitter,
            "on": sorted(self.on),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Retry:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


def _causes(on: Iterable[Cause | str]) -> frozenset[Cause]:
    names = [on] if isinstance(on, str) else list(on)
    known = {str(cause) for cause in Cause}
    for name in names:
        if str(name) not in known:
            raise InvalidInput(f"retries: unknown cause {name!r} in on=; known are {', '.join(sorted(known))}")
    causes = frozenset(Cause(name) for name in names)
    if refused := causes & _NEVER:
        raise InvalidInput(f"retries: {', '.join(sorted(refused))} in on= can't be repeated")
    return causes


def _swing(seed: str) -> float:
    """A number in [-1, 1) that depends on the seed alone."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**63 - 1
