"""Run ids: 26 lower-case characters that sort by the time of their making, as ULIDs do. And the forms of all ids.

Ids come back in arguments, messages, records, labels and variables, and so from anybody. Whoever takes one from there
asks here first: what hasn't the form of an id becomes no part of a key, a topic, a script, a path or a name.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from typing import TypeGuard

from dispatcher.errors import UnknownRun

#: Crockford's base 32: no i, l, o, u, so that an id can be read aloud.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_RANDOM_BITS = 80
_STEP_BITS = 40

#: What all ids of one process end with, in characters: whoever waits for its runs listens to one topic for all of them.
_ENDING = 4
_ENDING_BITS = 5 * _ENDING

# New ids are ours; those of other releases, and of tests, may be others of this form. None can leave a key, a path or
# a JSON string in which it stands.
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SHARD = re.compile(r".{1,250}/[0-9]{1,4}")
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,199}", re.ASCII)
_BLOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)

#: Longest name of a subscriber, in characters.
LONGEST_NAME = 200

_lock = threading.Lock()
_last = 0
_own = secrets.randbits(_ENDING_BITS)


def new_id() -> str:
    """A new id: 48 bits of milliseconds since the epoch, 60 random bits, and the 20 that this process's ids end with;
    higher than this process's last one."""
    global _last  # noqa: PLW0603 - one sequence per process
    made = int(time.time() * 1000) & (2**48 - 1)
    number = made << (_RANDOM_BITS - _ENDING_BITS) | secrets.randbits(_RANDOM_BITS - _ENDING_BITS)
    with _lock:
        if number <= _last:  # the same millisecond, or the clock went back
            number = _last + 1 + secrets.randbits(_STEP_BITS)
        _last = number
    number = number << _ENDING_BITS | _own
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)])


def ending(run_id: str) -> str:
    """Return the characters with which the ids of all runs end that one process has submitted."""
    return run_id[-_ENDING:]


def own_ending() -> str:
    """The :func:`ending` of this process's ids."""
    return "".join([ALPHABET[(_own >> shift) & 31] for shift in range(_ENDING_BITS - 5, -1, -5)])


def made_at(run_id: str) -> float | None:
    """When an id was made, in seconds since the epoch by its maker's clock; None if it isn't one of ours."""
    if len(run_id) != LENGTH or any(character not in ALPHABET for character in run_id):
        return None
    number = 0
    for character in run_id:
        number = number * 32 + ALPHABET.index(character)
    return (number >> _RANDOM_BITS) / 1000


def is_run_id(given: object) -> TypeGuard[str]:
    """Return True if it has the form of a run's id; there need be no such run."""
    return isinstance(given, str) and _RUN.fullmatch(given) is not None


def check_run_id(run_id: str) -> str:
    """The id, if it has the form of a run's.

    Raises:
        UnknownRun: it hasn't, and so belongs to no run.
    """
    if not isinstance(run_id, str) or _RUN.fullmatch(run_id) is None:  # each key of a run comes by here
        raise UnknownRun(f"no run {run_id!r}: an id has letters, digits, '-', '_' and '.', at most 64 of them")
    return run_id


def is_shard(given: object) -> TypeGuard[str]:
    """Return True if it has the form of a shard's name: ``backend/number`` or ``backend@place/number``."""
    return isinstance(given, str) and given.isprintable() and _SHARD.fullmatch(given) is not None


def is_worker_id(given: object) -> TypeGuard[str]:
    """Return True if it has the form of a worker's id: host, process and a nonce."""
    return isinstance(given, str) and _WORKER.fullmatch(given) is not None


def is_blob(given: object) -> TypeGuard[str]:
    """Return True if it has the form of a blob's digest, or of the name of a run's own blob."""
    return isinstance(given, str) and _BLOB.fullmatch(given) is not None


def is_instance(given: object) -> TypeGuard[str]:
    """Return True if it has the form of an installation's id: that of a run's."""
    return is_run_id(given)


def is_attempt(given: object) -> TypeGuard[int]:
    """Return True if it can be the number of an attempt."""
    return isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= 10**6


def is_subscriber(given: object) -> TypeGuard[str]:
    """Return True if it can name a subscriber: 1 to 200 printable characters."""
    return isinstance(given, str) and 0 < len(given) <= LONGEST_NAME and given.isprintable()


def _renew() -> None:
    """A fork's child begins a sequence of its own."""
    global _lock, _last, _own
    _lock, _last, _own = threading.Lock(), 0, secrets.randbits(_ENDING_BITS)


os.register_at_fork(after_in_child=_renew)
