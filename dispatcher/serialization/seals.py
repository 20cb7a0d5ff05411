"""Seals: MACs under keys that each serve one purpose. Pure.

The keys are derived by :mod:`dispatcher.serialization.signing_keys`.

A runner seals the pickles that its attempt gives back (:class:`AttemptSeal`). Workers seal what they store of their own
in a run's record (:class:`EngineSeal`), because submitters may write records, too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dispatcher.errors import SealBroken

#: The field of a sealed mapping that holds its seal.
SEAL = "seal"


class Returned(StrEnum):
    """The kinds of values that an attempt gives back."""

    RESULT = "result"
    EXCEPTION = "exception"


class Stored(StrEnum):
    """The kinds of values that the engine stores of its own in a record."""

    REQUEST = "request"
    HANDLE = "handle"


def mac(key: bytes, *words: str | int | bytes) -> bytes:
    """HMAC-SHA256 over words, each with its length, so that no two lists of words read the same."""
    parts = (word if isinstance(word, bytes) else str(word).encode() for word in words)
    return hmac.digest(key, b"".join(b"%d:%b" % (len(part), part) for part in parts), "sha256")


@dataclass(frozen=True)
class AttemptSeal:
    """Seals what one attempt of a run gives back: all that a container gets of the keys.

    Kind, run and attempt are inside what is sealed: an exception can't be given back as a result, nor the result of one
    attempt as that of another.
    """

    run_id: str
    attempt: int
    key: bytes = field(repr=False)

    def of(self, kind: Returned, codec: str, digest: str) -> str:
        """The seal of a value, in hex.

        Args:
            kind: what it is.
            codec: how its bytes are to be read.
            digest: SHA-256 of its bytes, in hex.
        """
        return mac(self.key, "value", kind, self.run_id, self.attempt, codec, digest).hex()

    def check(self, seal: str, kind: Returned, codec: str, digest: str) -> None:
        """Compare in constant time.

        Raises:
            SealBroken: the value isn't what this attempt gave back as its ``kind``.
        """
        if not hmac.compare_digest(self.of(kind, codec, digest).encode(), seal.encode(errors="replace")):
            raise SealBroken(
                f"a pickled {kind} wasn't sealed by attempt {self.attempt} of run {self.run_id}, so it isn't opened"
            )


class EngineSeal:
    """Seals what workers store in records, by keys that submitters needn't have.

    Args:
        keys: key id → key; the first one seals, all are accepted.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def sealed(self, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> dict[str, Any]:
        """``data`` (JSON) with its seal, bound to the attempt and to the place in its record."""
        key_id, key = next(iter(self._keys.items()))
        return {**data, SEAL: f"{key_id}:{_over(key, run_id, attempt, kind, data)}"}

    def check(self, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> None:
        """Check that a worker stored ``data`` for this very attempt.

        Raises:
            SealBroken: it was written by somebody else, or for another attempt.
        """
        seal = data.get(SEAL)
        key_id, _, given = seal.partition(":") if isinstance(seal, str) else ("", "", "")
        key = self._keys.get(key_id)
        bare = {name: value for name, value in data.items() if name != SEAL}
        if key is None or not hmac.compare_digest(
            _over(key, run_id, attempt, kind, bare).encode(), given.encode(errors="replace")
        ):
            raise SealBroken(
                f"the {kind} of attempt {attempt} of run {run_id} wasn't stored by a worker that has our keys: "
                "nothing is done with it"
            )


def _over(key: bytes, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):  # no JSON, so nobody has sealed it
        text = ""
    return mac(key, "stored", kind, run_id, attempt, text).hex()
