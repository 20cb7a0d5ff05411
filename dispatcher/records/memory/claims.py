"""Claims of runners on their attempts, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dispatcher.errors import ClaimStands
from dispatcher.records.effects import ends_unstarted
from dispatcher.runs.change import Change


class Claim(NamedTuple):
    """A runner's claim on its attempt that isn't in the record yet."""

    holder: str
    at: float
    entry: Mapping[str, str]

    @property
    def raw(self) -> str:
        """The claim as text."""
        return repr(tuple(self))


class MemoryClaims:
    """Claims by run id and attempt. Call with the lock held."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, int], Claim] = {}

    def standing(self, run_id: str, attempt: int, *, void: str) -> Claim | None:
        """Return the claim on an attempt; None if there is none, or only ``void``."""
        claim = self._claims.get((run_id, attempt))
        return None if claim is None or claim.raw == void else claim

    def add(self, run_id: str, attempt: int, claim: Claim) -> None:
        """Add the claim on an attempt."""
        self._claims[run_id, attempt] = claim

    def drop(self, run_id: str, attempt: int) -> None:
        """Drop the claim on an attempt, if there is one."""
        self._claims.pop((run_id, attempt), None)

    def check(self, change: Change, void: str, now: float) -> None:
        """Check that a change doesn't end an attempt as never started that its runner has claimed.

        Raises:
            ClaimStands: it does.
        """
        if not ends_unstarted(change):
            return
        run_id, attempt = change.after.id, change.before.attempt if change.before is not None else 1
        if (claim := self.standing(run_id, attempt, void=void)) is not None:
            raise stands(run_id, claim, now)
        self.drop(run_id, attempt)


def stands(run_id: str, claim: Claim, now: float) -> ClaimStands:
    """Return the error for a claim that stands."""
    return ClaimStands(run_id, entry=claim.entry, at=claim.at, now=now, raw=claim.raw)
