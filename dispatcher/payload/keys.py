"""The signing keys: who holds them signs specs and verifies what comes back.

Each run has a key of its own, made from the ring's; a container gets that one alone. Secrets never show in a repr, a
message or a log. Called by the client, the worker's pool processes and ``dispatcher keygen``.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher import private
from dispatcher.errors import InvalidSettings, SealBroken

if TYPE_CHECKING:
    from dispatcher.settings import Settings

_SHORTEST = 16
_VARIABLE = "DISPATCHER__SIGNING_KEYS"
_KEYGEN = "`dispatcher keygen` makes one"


class KeyRing:
    """Key id → secret. The first key signs; all verify, so that keys can be rotated.

    Args:
        keys: at least one, in order.
        source: the variable they come from, for messages.

    Raises:
        InvalidSettings: there is none, or a secret is shorter than 16 bytes.
    """

    def __init__(self, keys: Mapping[str, str], *, source: str = _VARIABLE) -> None:
        if not keys:
            raise InvalidSettings(f"{source}: holds no key; {_KEYGEN}")
        for key_id, secret in keys.items():
            if not key_id:
                raise InvalidSettings(f"{source}: a key id is empty")
            if len(secret.encode()) < _SHORTEST:
                raise InvalidSettings(f"{source}: the secret of key {key_id!r} is shorter than {_SHORTEST} bytes")
        self._secrets = {key_id: secret.encode() for key_id, secret in keys.items()}
        self._source = source
        self.signs = next(iter(keys))  #: id of the key that signs
        self._last = "", "", b""  # the key of a run made last: verifying and sealing want the same

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The keys that the settings name.

        Raises:
            InvalidSettings: none are given, or the file can't be read; names the variable and the remedy.
        """
        if settings.signing_keys is not None:
            return cls({key_id: secret.get_secret_value() for key_id, secret in settings.signing_keys.items()})
        if settings.signing_keys_file is not None:
            source = f"{_VARIABLE}_FILE"
            return cls(_read(settings.signing_keys_file, source), source=source)
        raise InvalidSettings(f"no signing key: set {_VARIABLE} or {_VARIABLE}_FILE; {_KEYGEN}")

    @staticmethod
    def generate() -> dict[str, str]:
        """A new key ring's content: one fresh id with a random secret of 32 bytes."""
        return {f"k{secrets.token_hex(4)}": secrets.token_urlsafe(32)}

    def run_key(self, run_id: str, key_id: str | None = None) -> bytes:
        """The key of one run, from the key that signs or the one named.

        Raises:
            SealBroken: the ring has no such key.
        """
        key_id = self.signs if key_id is None else key_id
        of_run, of_key, known = self._last
        if known and (of_run, of_key) == (run_id, key_id):
            return known
        secret = self._secrets.get(key_id)
        if secret is None:
            raise SealBroken(
                f"key {key_id!r} isn't in the key ring (it has {', '.join(map(repr, self._secrets))}): "
                f"give this process the key that signed, in {self._source}"
            )
        key = hmac.digest(secret, run_id.encode(), "sha256")
        self._last = run_id, key_id, key
        return key

    def sign(self, run_id: str, data: bytes) -> str:
        """Signature of a run's spec, by the key :attr:`signs`."""
        return _signature(self.run_key(run_id), data)

    def verify(self, run_id: str, key_id: str, data: bytes, signature: str) -> None:
        """Check a spec's signature in constant time.

        Raises:
            SealBroken: it isn't signed with that key, was changed, or belongs to another run.
        """
        expected = _signature(self.run_key(run_id, key_id), data)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise SealBroken(
                f"run {run_id} isn't signed with our key {key_id!r}, or was changed on its way: it is never opened"
            )

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._secrets)})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a KeyRing holds secrets and can't be pickled: read the settings in each process")


class RunKey(KeyRing):
    """The key of one run alone: all that a container gets."""

    def __init__(self, run_id: str, key_id: str, key: bytes) -> None:
        self.signs = key_id
        self._run_id = run_id
        self._key = key

    def run_key(self, run_id: str, key_id: str | None = None) -> bytes:
        if run_id != self._run_id or key_id not in {None, self.signs}:
            raise SealBroken(f"this process holds the key of run {self._run_id} ({self.signs!r}) alone")
        return self._key

    def __repr__(self) -> str:
        return f"RunKey({self._run_id})"


def _signature(key: bytes, data: bytes) -> str:
    return hmac.digest(key, b"spec:" + data, "sha256").hex()


def _read(path: Path, source: str) -> dict[str, str]:
    try:
        data = json.loads(private.read(path))
    except InvalidSettings as error:
        raise InvalidSettings(f"{source}: {error}") from None
    except OSError as error:
        raise InvalidSettings(f"{source}: {path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidSettings(f"{source}: {path} isn't JSON of the form key id → secret") from None
    if not isinstance(data, dict) or not all(isinstance(secret, str) for secret in data.values()):
        raise InvalidSettings(f"{source}: {path} isn't JSON of the form key id → secret")
    return data
