"""What a runner in a container is told: read once from its variables, and the secret ones removed from sight."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from dispatcher.errors import InvalidSettings
from dispatcher.payload.keys import RunKey

_PREFIX = "DISPATCHER__RUN__"
_SECRET = ("KEY", "TOKEN")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt, as its worker assigned it to this process.

    ``url`` is the records' server, ``shard`` the inbox to report to, ``holder`` names this very start of a process.
    """

    run_id: str
    attempt: int
    shard: str
    url: str = field(repr=False)
    keys: RunKey
    token: str = field(repr=False)
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}")

    @classmethod
    def take(cls, variables: MutableMapping[str, str]) -> Assignment:
        """Read the variables that the worker set, and remove the secrets: the flow has no use for them.

        Raises:
            InvalidSettings: one is missing; this program is started by a backend, not by hand.
        """
        try:
            found = {name: variables[_PREFIX + name] for name in ("ID", "ATTEMPT", "SHARD", "KEY_ID", "KEY", "TOKEN")}
            url = variables["DISPATCHER__URL"]
        except KeyError as error:
            raise InvalidSettings(f"{error.args[0]}: not set; a backend starts this program, not a person") from None
        for name in (*(_PREFIX + secret for secret in _SECRET), "DISPATCHER__URL"):
            del variables[name]
        return cls(
            run_id=found["ID"],
            attempt=int(found["ATTEMPT"]),
            shard=found["SHARD"],
            url=url,
            keys=RunKey(found["ID"], found["KEY_ID"], bytes.fromhex(found["KEY"])),
            token=found["TOKEN"],
        )
