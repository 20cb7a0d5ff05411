"""Names by which pool processes hold runs: ``host:pid:nonce``, which only the processes of one worker can make.

Otherwise, anybody who may write records could name an idle process as the holder of a run and cancel that run: the
monitor would kill the process. Pool processes make the names, the monitor checks them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets

from workers.pool.termination import pid_of

#: Characters of a nonce: the random ones, and the MAC that follows.
_RANDOM = 8
_MAC = 16


class HolderNames:
    """Maker of holders' names. Created in the worker's parent; its processes inherit the secret by the fork."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._secret = secrets.token_bytes(32)

    def new(self, run_id: str) -> str:
        """Return a name for this process as the holder of a run."""
        random = secrets.token_hex(_RANDOM // 2)
        return f"{self._host}:{os.getpid()}:{random}{self._mac(os.getpid(), run_id, random)}"

    def is_authentic(self, holder: str, run_id: str) -> bool:
        """Return True if the process that the name contains made it itself, for that run."""
        pid, nonce = pid_of(holder), holder.rpartition(":")[2]
        if pid is None or not nonce.isascii():
            return False
        return hmac.compare_digest(nonce[_RANDOM:], self._mac(pid, run_id, nonce[:_RANDOM]))

    def _mac(self, pid: int, run_id: str, random: str) -> str:
        content = f"{pid}:{random}:{run_id}".encode(errors="backslashreplace")
        return hmac.new(self._secret, content, hashlib.sha256).hexdigest()[:_MAC]
