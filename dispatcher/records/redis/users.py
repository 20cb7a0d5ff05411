"""Users of single attempts in the server's access control list (https://redis.io/docs/latest/commands/acl-setuser/).

Their rights are those of the user ``runner`` of the security page, on the keys of one attempt.
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
_KEEP = ("fcall", "hget", "hset", "xadd", "xrevrange", "expire", "pexpire", "persist")
_NOBODY = "nobody"

#: With it a library tells the server its name; refused, each connection would leave an entry in the server's ACL log.
_TELLS = ("+client|setinfo",)

#: Users removed by one command.
_PORTION = 500


class RedisUsers(Users):
    """Their names are ``<instance>:<run id>:<attempt>``, so that no installation takes those of another."""

    def __init__(self, client: Client, keys: Keys, *, instance: str) -> None:
        self._client = client
        self._keys = keys
        self._prefix = f"{instance}:"
        self._told = True

    def make(self, reach: AttemptScope, password: str) -> str:
        name = self._name(reach.run_id, reach.attempt)
        command = ("ACL", "SETUSER", name, *rules(self._keys, reach, password))
        if self._told:
            [reply] = self._client.call([(*command, *_TELLS)])
            self._told = not isinstance(reply, redis.ResponseError)  # Redis 7.0 doesn't know that command
        if not self._told:
            self._client.one(*command)
        return name

    def known(self) -> list[tuple[str, int]]:
        names = (name.decode(errors="replace") for name in self._client.one("ACL", "USERS"))
        return [found for name in names if (found := self._attempt(name)) is not None]

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
        """Run and attempt of a user; None for one that isn't ours."""
        run_id, _, number = name.removeprefix(self._prefix).partition(":")
        ours = name.startswith(self._prefix) and is_run_id(run_id) and number.isascii() and number.isdecimal()
        return (run_id, int(number)) if ours and is_attempt(int(number)) else None


def rules(keys: Keys, reach: AttemptScope, password: str) -> tuple[str, ...]:
    """The rules of an attempt's user, as ``ACL SETUSER`` takes them. The password goes as its SHA-256, so that no log
    of the server's has it.

    Args:
        keys: of the installation.
        reach: what the user may reach.
        password: its password.

    Raises:
        UnknownRun, InvalidInput, KeyError: the reach has a run, a shard or a blob that can't be one.
    """
    run_id = reach.run_id
    record, *own = keys.of_run(run_id)
    readable = (INSTANCE, record, *own, *map(keys.blob, reach.blobs))
    kept = keys.logs(run_id), keys.lines(run_id), keys.blobs(run_id)
    return (
        *("reset", "on", f"#{hashlib.sha256(password.encode()).hexdigest()}", "resetchannels", "-@all"),
        *(f"%R~{key}" for key in readable),
        *(f"+{command}" for command in _READ),
        _selector(kept, _KEEP),
        _selector((keys.inbox(reach.shard),), ("xadd",)),
        _selector((keys.report("*"),), ("set",)),
        _selector((keys.claim(run_id, reach.attempt),), ("get", "set")),
    )


def _selector(keys: Iterable[str], commands: Iterable[str]) -> str:
    return f"({' '.join([*(f'~{key}' for key in keys), *(f'+{command}' for command in commands)])})"
