"""Run ids, and checks of the form of all ids. A run id has 26 lower-case characters and sorts by time, like a ULID.

Ids in arguments, messages, records, labels and variables may come from anybody. Check them here before use: text that
hasn't the form of an id must not become a part of a key, a topic, a script, a path or a name.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from typing import TypeGuard

from dispatcher.errors import UnknownRun
from dispatcher.support.escaping import shown

#: Crockford's base 32: no i, l, o, u, so that an id can be read aloud.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 26
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_RANDOM_BITS = 80
_STEP_BITS = 40

#: Length of the suffix that all ids of one process share: a client subscribes to one topic for all of its runs.
_ENDING = 4
_ENDING_BITS = 5 * _ENDING

# Other releases and tests may use other ids of this form. No id can break out of a key, a path or a JSON string.
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
    """Return a new id, higher than this process's last one.

    It holds 48 bits of milliseconds since the epoch, 60 random bits, and the 20 bits that this process's ids end with.
    """
    global _last  # noqa: PLW0603 - one sequence per process
    milliseconds = int(time.time() * 1000) & (2**48 - 1)
    number = milliseconds << (_RANDOM_BITS - _ENDING_BITS) | secrets.randbits(_RANDOM_BITS - _ENDING_BITS)
    with _lock:
        if number <= _last:  # the same millisecond, or the clock went back
            number = _last + 1 + secrets.randbits(_STEP_BITS)
        _last = number
    number = number << _ENDING_BITS | _own
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(5 * (LENGTH - 2), -1, -10)])


def ending(run_id: str) -> str:
    """Return the suffix that the ids of all runs of the same submitting process share."""
    return run_id[-_ENDING:]


def own_ending() -> str:
    """Return the :func:`ending` of this process's ids."""
    return "".join([ALPHABET[(_own >> shift) & 31] for shift in range(_ENDING_BITS - 5, -1, -5)])


def made_at(run_id: str) -> float | None:
    """Return when an id was made, in seconds since the epoch by its maker's clock; None if it isn't one of ours."""
    if len(run_id) != LENGTH or any(character not in ALPHABET for character in run_id):
        return None
    number = 0
    for character in run_id:
        number = number * 32 + ALPHABET.index(character)
    return (number >> _RANDOM_BITS) / 1000


def is_run_id(value: object) -> TypeGuard[str]:
    """Return True if ``value`` has the form of a run's id. The run need not exist."""
    return isinstance(value, str) and _RUN.fullmatch(value) is not None


def check_run_id(run_id: str) -> str:
    """Return the id if it has the form of a run's.

    Raises:
        UnknownRun: it hasn't, so no run can have it.
    """
    if not isinstance(run_id, str) or _RUN.fullmatch(run_id) is None:  # called for each key of a run
        raise UnknownRun(f"no run {shown(run_id)}: an id has at most 64 letters, digits, '-', '_' and '.'")
    return run_id


def is_shard(value: object) -> TypeGuard[str]:
    """Return True if ``value`` has the form of a shard's name: ``backend/number`` or ``backend@place/number``."""
    return isinstance(value, str) and value.isprintable() and _SHARD.fullmatch(value) is not None


def is_worker_id(value: object) -> TypeGuard[str]:
    """Return True if ``value`` has the form of a worker's id: host, process and nonce."""
    return isinstance(value, str) and _WORKER.fullmatch(value) is not None


def is_blob(value: object) -> TypeGuard[str]:
    """Return True if ``value`` has the form of a blob's digest, or of the name of a run's own blob."""
    return isinstance(value, str) and _BLOB.fullmatch(value) is not None


def is_instance(value: object) -> TypeGuard[str]:
    """Return True if ``value`` has the form of an installation's id, which is that of a run's."""
    return is_run_id(value)


def is_attempt(value: object) -> TypeGuard[int]:
    """Return True if ``value`` can be the number of an attempt."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**6


def is_subscriber(value: object) -> TypeGuard[str]:
    """Return True if ``value`` can be a subscriber's name: 1 to 200 printable characters."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _renew() -> None:
    """Start a new sequence in a forked child."""
    global _lock, _last, _own
    _lock, _last, _own = threading.Lock(), 0, secrets.randbits(_ENDING_BITS)


os.register_at_fork(after_in_child=_renew)
