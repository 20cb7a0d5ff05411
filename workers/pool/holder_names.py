"""Names by which pool processes hold runs: ``host:pid:nonce``, which only the processes of one worker can make.

Anybody who may write records could else say of an idle process that it holds a run, and have the run cancelled: the
keeper would kill the process. Called by the pool, which makes them, and the keeper.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from workers.pool.termination import pid_of

#: Characters of a nonce that are random; a MAC follows.
_RANDOM = 8
_MAC = 16


class HolderNames:
    """Made in the worker's parent; its processes inherit the secret as they are forked."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._secret = secrets.token_bytes(32)

    def new(self, run_id: str) -> str:
        """This process, as it takes a run."""
        random = secrets.token_hex(_RANDOM // 2)
        return f"{self._host}:{os.getpid()}:{random}{self._mac(os.getpid(), run_id, random)}"

    def made(self, holder: str, run_id: str) -> bool:
        """Return True if the process that is named there has made the name itself, for that run."""
        pid, nonce = pid_of(holder), holder.rpartition(":")[2]
        if pid is None or not nonce.isascii():
            return False
        return hmac.compare_digest(nonce[_RANDOM:], self._mac(pid, run_id, nonce[:_RANDOM]))

    def _mac(self, pid: int, run_id: str, random: str) -> str:
        named = f"{pid}:{random}:{run_id}".encode(errors="backslashreplace")
        return hmac.new(self._secret, named, hashlib.sha256).hexdigest()[:_MAC]
