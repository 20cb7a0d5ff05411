"""Seals: message authentication codes under keys that each serve one purpose. Pure.

A runner seals the pickles that its attempt returns (:class:`AttemptSeal`). Workers seal the requests and handles that
they store in records (:class:`EngineSeal`), because submitters may write records, too. The keys are derived in
:mod:`dispatcher.serialization.signing_keys`.
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
    """The kinds of values that an attempt returns."""

    RESULT = "result"
    EXCEPTION = "exception"


class Stored(StrEnum):
    """The kinds of values that workers seal in a record."""

    REQUEST = "request"
    HANDLE = "handle"


def mac(key: bytes, *words: str | int | bytes) -> bytes:
    """Return the HMAC-SHA256 of words. Each word follows its length, so that no two lists give the same bytes."""
    parts = (word if isinstance(word, bytes) else str(word).encode() for word in words)
    return hmac.digest(key, b"".join(b"%d:%b" % (len(part), part) for part in parts), "sha256")


@dataclass(frozen=True)
class AttemptSeal:
    """Seals the values that one attempt of a run returns. A container gets this seal instead of the signing keys.

    The seal covers kind, run and attempt: an exception can't be passed off as a result, nor the result of one attempt
    as that of another.
    """

    run_id: str
    attempt: int
    key: bytes = field(repr=False)

    def of(self, kind: Returned, codec: str, digest: str) -> str:
        """Return the seal of a value, in hex.

        Args:
            kind: the value's kind.
            codec: the codec of its bytes.
            digest: SHA-256 of its bytes, in hex.
        """
        return mac(self.key, "value", kind, self.run_id, self.attempt, codec, digest).hex()

    def check(self, seal: str, kind: Returned, codec: str, digest: str) -> None:
        """Check a value's seal, in constant time.

        Raises:
            SealBroken: this attempt didn't return the value as its ``kind``.
        """
        if not hmac.compare_digest(self.of(kind, codec, digest).encode(), seal.encode(errors="replace")):
            raise SealBroken(
                f"a pickled {kind} wasn't sealed by attempt {self.attempt} of run {self.run_id}, so it isn't opened"
            )


class EngineSeal:
    """Seals values that workers store in records, with keys that submitters needn't have.

    Args:
        keys: key id → key. The first one seals, all are accepted.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    def sealed(self, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``data`` (JSON) with its seal, which is bound to the attempt and to the kind."""
        key_id, key = next(iter(self._keys.items()))
        return {**data, SEAL: f"{key_id}:{_stored_mac(key, run_id, attempt, kind, data)}"}

    def check(self, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> None:
        """Check that a worker stored ``data`` for this very attempt.

        Raises:
            SealBroken: somebody else stored it, or it was stored for another attempt.
        """
        seal = data.get(SEAL)
        key_id, _, code = seal.partition(":") if isinstance(seal, str) else ("", "", "")
        key = self._keys.get(key_id)
        bare = {name: value for name, value in data.items() if name != SEAL}
        if key is None or not hmac.compare_digest(
            _stored_mac(key, run_id, attempt, kind, bare).encode(), code.encode(errors="replace")
        ):
            raise SealBroken(
                f"the {kind} of attempt {attempt} of run {run_id} wasn't stored by a worker that has our keys: "
                "it isn't used"
            )


def _stored_mac(key: bytes, run_id: str, attempt: int, kind: Stored, data: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):  # not JSON, so nobody has sealed it
        text = ""
    return mac(key, "stored", kind, run_id, attempt, text).hex()
