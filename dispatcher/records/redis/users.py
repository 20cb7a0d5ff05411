"""Users of attempts in the server's access control list (https://redis.io/docs/latest/commands/acl-setuser/).

Each has the rights of the user ``runner`` of the security page, but only on the keys of one attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import redis

from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import INSTANCE, Keys
from dispatcher.records.users import AttemptScope, Users
from dispatcher.support.ids import is_attempt, is_run_id

_READ = ("fcall", "get", "hget", "hmget", "hgetall", "hexists", "exists", "pttl", "time", "ping", "select")
_WRITE = ("fcall", "hget", "hset", "xadd", "xrevrange", "expire", "pexpire", "persist")
_NOBODY = "nobody"

#: redis-py sends its name by this command. Without the right, each connection adds an entry to the server's ACL log.
_SET_INFO = ("+client|setinfo",)

#: Most users removed by one command.
_PORTION = 500


class RedisUsers(Users):
    """Names are ``<instance>:<run id>:<attempt>``, so that installations can share a server."""

    def __init__(self, client: Client, keys: Keys, *, instance: str) -> None:
        self._client = client
        self._keys = keys
        self._prefix = f"{instance}:"
        self._knows_set_info = True

    def make(self, scope: AttemptScope, password: str) -> str:
        name = self._name(scope.run_id, scope.attempt)
        command = ("ACL", "SETUSER", name, *rules(self._keys, scope, password))
        if self._knows_set_info:
            [reply] = self._client.call([(*command, *_SET_INFO)])
            self._knows_set_info = not isinstance(reply, redis.ResponseError)  # Redis 7.0 lacks that command
        if not self._knows_set_info:
            self._client.one(*command)
        return name

    def known(self) -> list[tuple[str, int]]:
        names = (name.decode(errors="replace") for name in self._client.one("ACL", "USERS"))
        return [attempt for name in names if (attempt := self._attempt(name)) is not None]

    def remove(self, attempts: Iterable[tuple[str, int]]) -> None:
        names = [self._name(*attempt) for attempt in attempts]
        for start in range(0, len(names), _PORTION):
            self._client.one("ACL", "DELUSER", *names[start : start + _PORTION])

    def allowed(self) -> bool:
        name = f"{self._prefix}{_NOBODY}"
        replies = self._client.call([("ACL", "USERS"), ("ACL", "SETUSER", name, "reset"), ("ACL", "DELUSER", name)])
        return not any(isinstance(reply, redis.exceptions.NoPermissionError) for reply in replies)

    def _name(self, run_id: str, attempt: int) -> str:
        return f"{self._prefix}{run_id}:{attempt}"

    def _attempt(self, name: str) -> tuple[str, int] | None:
        """Return run id and attempt of a user; None for users that aren't ours."""
        run_id, _, number = name.removeprefix(self._prefix).partition(":")
        ours = name.startswith(self._prefix) and is_run_id(run_id) and number.isascii() and number.isdecimal()
        return (run_id, int(number)) if ours and is_attempt(int(number)) else None


def rules(keys: Keys, scope: AttemptScope, password: str) -> tuple[str, ...]:
    """Return the rules of an attempt's user for ``ACL SETUSER``.

    They contain the SHA-256 of the password, so that no log of the server contains the password itself.

    Args:
        keys: of the installation.
        scope: the keys it may reach.
        password: its password.

    Raises:
        UnknownRun, InvalidInput, KeyError: the scope contains an invalid run id, shard or digest.
    """
    run_id = scope.run_id
    record, *own = keys.of_run(run_id)
    readable = (INSTANCE, record, *own, *map(keys.blob, scope.blobs))
    written = keys.logs(run_id), keys.lines(run_id), keys.blobs(run_id)
    return (
        *("reset", "on", f"#{hashlib.sha256(password.encode()).hexdigest()}", "resetchannels", "-@all"),
        *(f"%R~{key}" for key in readable),
        *(f"+{command}" for command in _READ),
        _selector(written, _WRITE),
        _selector((keys.inbox(scope.shard),), ("xadd",)),
        _selector((keys.report("*"),), ("set",)),
        _selector((keys.claim(run_id, scope.attempt),), ("get", "set")),
    )


def _selector(keys: Iterable[str], commands: Iterable[str]) -> str:
    return f"({' '.join([*(f'~{key}' for key in keys), *(f'+{command}' for command in commands)])})"
