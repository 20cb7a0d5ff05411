"""Compiled code of bundles that a worker keeps for its processes, and takes from none but them.

Python trusts whatever bytecode lies in ``__pycache__``. A bundle's directory may have some that another process of the
same user has put there, so modules of bundles are imported without it (:mod:`.bundle_modules`). Each file here begins
with a code of authentication, whose key only this process and its forks know.
"""

from __future__ import annotations

import hmac
import importlib.util
import marshal
import os
import secrets
import sys
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import CodeType

_MAC_BYTES = 32


class BytecodeStore:
    """Compiled code by the source from which it was made.

    Args:
        directory: made with mode 0700 if it isn't there.
        key: authenticates the files.
    """

    def __init__(self, directory: Path, key: bytes) -> None:
        self._directory = directory
        self._key = key

    def get(self, path: str, digest: str) -> CodeType | None:
        """Return the code of a source file; None if a process with this key has kept none.

        Args:
            path: of the source file, which is in the code.
            digest: its SHA-256, in hex.
        """
        try:
            data = self._file(path, digest).read_bytes()
        except OSError:
            return None
        mac, code = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(path, digest, code)):
            return None
        return marshal.loads(code)  # type: ignore[no-any-return]

    def put(self, path: str, digest: str, code: CodeType) -> None:
        """Keep code, unless Python is told to write none, or it can't be written."""
        if sys.dont_write_bytecode:
            return
        data = marshal.dumps(code)
        draft = self._directory / f".{secrets.token_hex(16)}"
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._mac(path, digest, data) + data)
            draft.replace(self._file(path, digest))

    def _file(self, path: str, digest: str) -> Path:
        return self._directory / blake2b(f"{path}\0{digest}".encode(), digest_size=20).hexdigest()

    def _mac(self, path: str, digest: str, code: bytes) -> bytes:
        means = f"{path}\0{digest}\0{sys.flags.optimize}\0".encode() + importlib.util.MAGIC_NUMBER
        return blake2b(means + code, key=self._key, digest_size=_MAC_BYTES).digest()
