"""The signing keys: who holds them signs specs and verifies what comes back.

Each purpose has keys of its own, derived from the ring's secrets: to sign a spec, to seal what an attempt gives back,
to authenticate its reports, to seal what workers store. A container gets those of its attempt, which sign nothing.
Secrets never show in a repr, a message or a log. Called by the client, the worker, its pool processes and
``dispatcher keygen``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dispatcher.errors import InvalidInput, InvalidSettings, SealBroken
from dispatcher.serialization.seals import AttemptSeal, EngineSeal, mac
from dispatcher.support import private_files
from dispatcher.support.json_documents import DuplicateKey, read_document

if TYPE_CHECKING:
    from dispatcher.runs.record import Record
    from dispatcher.settings import Settings

_SHORTEST = 16
_VARIABLE = "DISPATCHER__SIGNING_KEYS"
_KEYGEN = "`dispatcher keygen` makes one"
_FORM = 'key id → secret, or → {"secret": …, "backends": [...]}'

#: What a key may be for: to sign specs, or to seal what workers store in records.
SPECS, RECORDS = "specs", "records"


class Credentials(Protocol):
    """The keys with which a process that runs a flow verifies and seals."""

    def check(self, record: Record, now: float) -> None:
        """Check that a run's spec is what its submitter signed, and still may be used.

        Args:
            record: the run.
            now: the server's clock, in seconds since the epoch.

        Raises:
            SealBroken: nothing of the run may be acted upon.
        """

    def seal(self, record: Record) -> AttemptSeal:
        """Seals what the record's attempt gives back.

        Raises:
            SealBroken: this process doesn't hold its key.
        """


@dataclass(frozen=True)
class Key:
    """A secret, the backends that its runs may use (None: all), and what it is for."""

    secret: bytes = field(repr=False)
    backends: frozenset[str] | None = None
    use: str = SPECS


class KeyRing:
    """Key id → key. The first key that signs specs does; all verify, so that keys can be rotated.

    Args:
        keys: at least one that signs, in order: a secret, or a mapping with ``secret``, ``backends`` (names of those
            that runs signed with it may use; else all) and ``use`` (``specs``, or ``records``: workers seal with it).
        source: the variable they come from, for messages.

    Raises:
        InvalidSettings: there is none, one has another form, or a secret is shorter than 16 bytes.
    """

    def __init__(self, keys: Mapping[str, Any], *, source: str = _VARIABLE) -> None:
        self._source = source
        self.owner = "this process"  #: who has the ring, for messages that others read
        read = {key_id: _key(key_id, entry, source) for key_id, entry in keys.items()}
        self._keys = {key_id: key for key_id, key in read.items() if key.use == SPECS}
        if not self._keys:
            raise InvalidSettings(f"{source}: holds no key that signs; {_KEYGEN}")
        sealing = {key_id: key for key_id, key in read.items() if key.use == RECORDS} or self._keys
        self.engine = EngineSeal({key_id: mac(key.secret, RECORDS) for key_id, key in sealing.items()})
        self.signs = next(iter(self._keys))  #: id of the key that signs
        self._last = "", "", b""  # the key of a run's spec made last: a map signs, a worker verifies many

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The keys that the settings name.

        Raises:
            InvalidSettings: none are given, or the file can't be read; names the variable and the remedy.
        """
        if settings.signing_keys is not None:
            return cls({key_id: entry.plain() for key_id, entry in settings.signing_keys.items()})
        if settings.signing_keys_file is not None:
            source = f"{_VARIABLE}_FILE"
            return cls(_keys_of(settings.signing_keys_file, source), source=source)
        raise InvalidSettings(f"no signing key: set {_VARIABLE} or {_VARIABLE}_FILE; {_KEYGEN}")

    @staticmethod
    def generate() -> dict[str, str]:
        """A new key ring's content: one fresh id with a random secret of 32 bytes."""
        return {f"k{secrets.token_hex(4)}": secrets.token_urlsafe(32)}

    def sign(self, run_id: str, data: bytes) -> str:
        """Signature of a run's spec, by the key :attr:`signs`."""
        return self._signature(run_id, self.signs, data)

    def verify(self, run_id: str, key_id: str, data: bytes, signature: str) -> None:
        """Check a spec's signature in constant time.

        Raises:
            SealBroken: it isn't signed with that key, was changed, or belongs to another run.
        """
        expected = self._signature(run_id, key_id, data)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise SealBroken(
                f"run {run_id} isn't signed with our key {key_id!r}, or was changed on its way: it is never opened"
            )

    def check(self, record: Record, now: float) -> None:
        spec = record.spec
        self.verify(record.id, spec.key_id, record.spec_bytes, record.signature)
        if spec.run_id != record.id:
            raise SealBroken(f"run {record.id} carries the spec of run {spec.run_id}: it is never opened")
        if spec.expires is None:
            raise SealBroken(f"the signature of run {record.id} never ends, which none may: submit it again")
        if spec.expires <= now:
            raise SealBroken(
                f"the signature of run {record.id} ended {now - spec.expires:.0f} s ago: the run waited too long; "
                "submit it again"
            )
        if not self._allows(spec.key_id, spec.route.backend):
            raise SealBroken(
                f"run {record.id} was signed with key {spec.key_id!r}, which may not use backend "
                f"{spec.route.backend!r}: submit it with another key, or change the key's entry in "
                f"{self._source} of {self.owner}"
            )

    def knows(self, record: Record) -> bool:
        """Return True if the ring has the key that is said to have signed a run."""
        return record.spec.key_id in self._keys

    def check_backend(self, backend: str) -> None:
        """Refuse what workers with the same file would.

        Raises:
            InvalidInput: the key that signs may not use it.
        """
        if not self._allows(self.signs, backend):
            allowed = ", ".join(sorted(self._keys[self.signs].backends or ()))
            raise InvalidInput(
                f"environment: key {self.signs!r} may not use backend {backend!r}, only {allowed}; "
                f"sign with another key, or change its entry in {self._source}"
            )

    def seal(self, record: Record) -> AttemptSeal:
        return self.attempt_seal(record.id, record.attempt, record.spec.key_id)

    def attempt_seal(self, run_id: str, attempt: int, key_id: str | None = None) -> AttemptSeal:
        """Seals what an attempt gives back; of the key that signs, or the one named.

        Raises:
            SealBroken: the ring has no such key.
        """
        return AttemptSeal(run_id, attempt, mac(self._secret(key_id), "seal", run_id, attempt))

    def token(self, run_id: str, attempt: int, epoch: int, key_id: str | None = None) -> str:
        """The token, in hex, that authenticates an attempt's reports. It carries the epoch of the claim that made the
        attempt.

        Raises:
            SealBroken: the ring has no such key.
        """
        return mac(self._secret(key_id), "token", run_id, attempt, epoch).hex()

    def password(self, run_id: str, attempt: int, epoch: int, key_id: str | None = None) -> str:
        """The password, in hex, of an attempt's user of the records. Arguments and errors as :meth:`token`."""
        return mac(self._secret(key_id), "user", run_id, attempt, epoch).hex()

    def _allows(self, key_id: str, backend: str) -> bool:
        backends = self._keys[key_id].backends
        return backends is None or backend in backends

    def _signature(self, run_id: str, key_id: str, data: bytes) -> str:
        of_run, of_key, key = self._last
        if not key or (of_run, of_key) != (run_id, key_id):
            key = mac(self._secret(key_id), "spec", run_id)
            self._last = run_id, key_id, key
        return hmac.digest(key, data, "sha256").hex()

    def _secret(self, key_id: str | None) -> bytes:
        key = self._keys.get(self.signs if key_id is None else key_id)
        if key is None:
            raise SealBroken(
                f"key {key_id!r} isn't in the key ring (it has {', '.join(map(repr, self._keys))}): "
                f"give {self.owner} the key that signed, in {self._source}"
            )
        return key.secret

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a KeyRing holds secrets and can't be pickled: read the settings in each process")


@dataclass(frozen=True)
class AttemptCredentials:
    """All that a container gets: it seals what one attempt gives back, and knows the spec that its worker verified."""

    sealing: AttemptSeal
    spec_digest: str

    @classmethod
    def of(cls, record: Record, sealing: AttemptSeal) -> AttemptCredentials:
        """Those of an attempt whose spec was verified."""
        return cls(sealing, spec_digest(record))

    def check(self, record: Record, now: float) -> None:
        if record.id != self.sealing.run_id or not hmac.compare_digest(spec_digest(record), self.spec_digest):
            raise SealBroken(f"run {record.id} has another spec than the one that its worker verified: it isn't opened")

    def seal(self, record: Record) -> AttemptSeal:
        if (record.id, record.attempt) != (self.sealing.run_id, self.sealing.attempt):
            raise SealBroken(
                f"this process seals for attempt {self.sealing.attempt} of run {self.sealing.run_id} alone"
            )
        return self.sealing


def spec_digest(record: Record) -> str:
    """SHA-256 of a record's spec as it came, in hex."""
    return hashlib.sha256(record.spec_bytes).hexdigest()


def _key(key_id: str, entry: Any, source: str) -> Key:
    if not key_id or not key_id.isprintable() or ":" in key_id:
        raise InvalidSettings(f"{source}: a key id must be printable, not empty and without a colon, got {key_id!r}")
    given = {"secret": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or not isinstance(given.get("secret"), str):
        raise InvalidSettings(f"{source}: key {key_id!r} isn't of the form {_FORM}")
    if unknown := given.keys() - {"secret", "backends", "use"}:
        raise InvalidSettings(f"{source}: key {key_id!r} has an unknown field: {', '.join(sorted(map(str, unknown)))}")
    secret, backends, use = given["secret"].encode(), given.get("backends"), given.get("use", SPECS)
    if len(secret) < _SHORTEST:
        raise InvalidSettings(f"{source}: the secret of key {key_id!r} is shorter than {_SHORTEST} bytes")
    if backends is not None and not (isinstance(backends, list | tuple) and all(isinstance(b, str) for b in backends)):
        raise InvalidSettings(f"{source}: backends of key {key_id!r} must be a list of names, got {backends!r}")
    if use not in {SPECS, RECORDS}:
        raise InvalidSettings(f"{source}: use of key {key_id!r} must be {SPECS!r} or {RECORDS!r}, got {use!r}")
    return Key(secret, None if backends is None else frozenset(backends), use)


def read_key_file(path: Path) -> dict[str, Any]:
    """Read a file of signing keys: entries by key id, not checked yet.

    Raises:
        OSError: it can't be read.
        InvalidSettings: other users could read or change it, or it holds no JSON object.
    """
    content = private_files.read(path)
    try:
        data = read_document(content)
    except DuplicateKey as error:
        raise InvalidSettings(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise InvalidSettings(f"{path} isn't JSON of the form {_FORM}")
    return data


def _keys_of(path: Path, source: str) -> dict[str, Any]:
    try:
        return read_key_file(path)
    except InvalidSettings as error:
        raise InvalidSettings(f"{source}: {error}") from None
    except OSError as error:
        raise InvalidSettings(f"{source}: {path} can't be read: {error.strerror}") from None
