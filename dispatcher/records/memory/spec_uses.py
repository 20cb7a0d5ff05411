"""Uses of signed specs, in this process."""

from __future__ import annotations

from dispatcher.errors import SpecUsed
from dispatcher.records.effects import spec_used
from dispatcher.runs.spec import DAY
from dispatcher.runs.use import Use


class SpecUses:
    """The words of :mod:`dispatcher.runs.use`, by the day on which a spec's signature expires, and run id.

    Call with the lock held.
    """

    def __init__(self) -> None:
        self._words: dict[tuple[int, str], str] = {}

    def get(self, run_id: str, day: int) -> str:
        """Return the word of a run; empty if nothing was noted."""
        return self._words.get((day, run_id), "")

    def note(self, run_id: str, use: Use, now: float) -> None:
        """Note a use, and drop the words of expired signatures.

        Raises:
            SpecUsed: the noted word doesn't allow this use.
        """
        word = self.get(run_id, use.day)
        if use.accepts is not None and word not in use.accepts:
            raise SpecUsed(spec_used(run_id, word))
        self._words[use.day, run_id] = use.word
        today = now // DAY
        for key in [key for key in self._words if key[0] < today]:
            del self._words[key]
