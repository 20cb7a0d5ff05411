"""Run ids: 26 lower-case characters that sort by the time of their making, as ULIDs do."""

from __future__ import annotations

import os
import secrets
import threading
import time

#: Crockford's base 32: no i, l, o, u, so that an id can be read aloud.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_RANDOM_BITS = 80
_STEP_BITS = 48

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new id: 48 bits of milliseconds since the epoch, then 80 random bits; higher than this process's last one."""
    global _last  # noqa: PLW0603 - one sequence per process
    number = (int(time.time() * 1000) & (2**48 - 1)) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    with _lock:
        if number <= _last:  # the same millisecond, or the clock went back
            number = _last + 1 + secrets.randbits(_STEP_BITS)
        _last = number
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)])


def made_at(run_id: str) -> float | None:
    """When an id was made, in seconds since the epoch by its maker's clock; None if it isn't one of ours."""
    if len(run_id) != LENGTH or any(character not in ALPHABET for character in run_id):
        return None
    number = 0
    for character in run_id:
        number = number * 32 + ALPHABET.index(character)
    return (number >> _RANDOM_BITS) / 1000


def _renew() -> None:
    """A fork's child begins a sequence of its own."""
    global _lock, _last
    _lock, _last = threading.Lock(), 0


os.register_at_fork(after_in_child=_renew)
