"""The signing keys, which sign specs and verify results.

Each purpose has a key of its own, derived from the ring's secrets: to sign a spec, to seal an attempt's values, to
authenticate its reports, to seal what workers store. A container gets only the keys of its attempt, which can't sign
specs. Secrets never appear in a repr, a message or a log. Used by the client, the worker, its pool processes and
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

_MIN_SECRET_BYTES = 16
_VARIABLE = "DISPATCHER__SIGNING_KEYS"
_KEYGEN = "`dispatcher keygen` makes one"
_FORM = 'key id → secret, or → {"secret": …, "backends": [...]}'

#: The uses of a key: to sign specs, or to seal values that workers store in records.
SPECS, RECORDS = "specs", "records"


class RunnerCredentials(Protocol):
    """The keys with which a runner verifies specs and seals values."""

    def check(self, record: Record, now: float) -> None:
        """Check that a run's spec is the one that its submitter signed, and hasn't expired.

        Args:
            record: the run.
            now: the server's clock, in seconds since the epoch.

        Raises:
            SealBroken: the run must not be acted upon.
        """

    def seal(self, record: Record) -> AttemptSeal:
        """Return the seal for the values of the record's attempt.

        Raises:
            SealBroken: this process doesn't hold its key.
        """


@dataclass(frozen=True)
class Key:
    """A secret, the backends that its runs may use (None: all), and its use."""

    secret: bytes = field(repr=False)
    backends: frozenset[str] | None = None
    use: str = SPECS


class KeyRing:
    """The signing keys of a process, by id. The first signs specs; all verify them, so that keys can be rotated.

    Args:
        keys: key id → a secret, or a mapping with ``secret``, ``backends`` (the backends that runs signed with it may
            use; default: all) and ``use`` (``specs``, or ``records``: workers seal with it). At least one is for specs.
        source: the variable that holds the keys, for messages.

    Raises:
        InvalidSettings: no key is for specs, one has another form, or a secret is shorter than 16 bytes.
    """

    def __init__(self, keys: Mapping[str, Any], *, source: str = _VARIABLE) -> None:
        self._source = source
        self.owner = "this process"  #: the ring's owner, in messages that others read
        read = {key_id: _key(key_id, entry, source) for key_id, entry in keys.items()}
        self._keys = {key_id: key for key_id, key in read.items() if key.use == SPECS}
        if not self._keys:
            raise InvalidSettings(f"{source}: holds no key that signs; {_KEYGEN}")
        sealing = {key_id: key for key_id, key in read.items() if key.use == RECORDS} or self._keys
        self.engine = EngineSeal({key_id: mac(key.secret, RECORDS) for key_id, key in sealing.items()})
        self.signing_key_id = next(iter(self._keys))  #: id of the key that signs specs
        self._last = "", "", b""  # run id, key id and key of the spec signed or verified last

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """Return the keys that the settings name.

        Raises:
            InvalidSettings: no key is set, or the file can't be read; names the variable and the remedy.
        """
        if settings.signing_keys is not None:
            return cls({key_id: entry.plain() for key_id, entry in settings.signing_keys.items()})
        if settings.signing_keys_file is not None:
            source = f"{_VARIABLE}_FILE"
            return cls(_keys_of(settings.signing_keys_file, source), source=source)
        raise InvalidSettings(f"no signing key: set {_VARIABLE} or {_VARIABLE}_FILE; {_KEYGEN}")

    @staticmethod
    def generate() -> dict[str, str]:
        """Return the content of a new key ring: one new id with a random secret of 32 bytes."""
        return {f"k{secrets.token_hex(4)}": secrets.token_urlsafe(32)}

    def sign(self, run_id: str, data: bytes) -> str:
        """Return the signature of a run's spec, made with the key :attr:`signing_key_id`."""
        return self._signature(run_id, self.signing_key_id, data)

    def verify(self, run_id: str, key_id: str, data: bytes, signature: str) -> None:
        """Check a spec's signature in constant time.

        Raises:
            SealBroken: the spec isn't signed with that key, was changed, or belongs to another run.
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
            raise SealBroken(f"the signature of run {record.id} has no expiry, which isn't allowed: submit it again")
        if spec.expires <= now:
            raise SealBroken(
                f"the signature of run {record.id} expired {now - spec.expires:.0f} s ago: the run waited too long; "
                "submit it again"
            )
        if not self._allows(spec.key_id, spec.route.backend):
            raise SealBroken(
                f"run {record.id} was signed with key {spec.key_id!r}, which may not use backend "
                f"{spec.route.backend!r}: submit it with another key, or change the key's entry in "
                f"{self._source} of {self.owner}"
            )

    def knows(self, record: Record) -> bool:
        """Return True if the ring has the key whose id the run's spec names."""
        return record.spec.key_id in self._keys

    def check_backend(self, backend: str) -> None:
        """Check that the key that signs may use ``backend``, as workers with the same keys will.

        Raises:
            InvalidInput: the key may not use the backend.
        """
        if not self._allows(self.signing_key_id, backend):
            allowed = ", ".join(sorted(self._keys[self.signing_key_id].backends or ()))
            raise InvalidInput(
                f"environment: key {self.signing_key_id!r} may not use backend {backend!r}, only {allowed}; "
                f"sign with another key, or change its entry in {self._source}"
            )

    def seal(self, record: Record) -> AttemptSeal:
        return self.attempt_seal(record.id, record.attempt, record.spec.key_id)

    def attempt_seal(self, run_id: str, attempt: int, key_id: str | None = None) -> AttemptSeal:
        """Return the seal for an attempt's values, derived from the key that signs or from the key named.

        Raises:
            SealBroken: the ring has no such key.
        """
        return AttemptSeal(run_id, attempt, mac(self._secret(key_id), "seal", run_id, attempt))

    def token(self, run_id: str, attempt: int, epoch: int, key_id: str | None = None) -> str:
        """Return the token, in hex, that authenticates an attempt's reports.

        It is bound to the epoch of the claim that made the attempt.

        Raises:
            SealBroken: the ring has no such key.
        """
        return mac(self._secret(key_id), "token", run_id, attempt, epoch).hex()

    def password(self, run_id: str, attempt: int, epoch: int, key_id: str | None = None) -> str:
        """Return the password, in hex, of an attempt's Redis user. Arguments and errors as :meth:`token`."""
        return mac(self._secret(key_id), "user", run_id, attempt, epoch).hex()

    def _allows(self, key_id: str, backend: str) -> bool:
        backends = self._keys[key_id].backends
        return backends is None or backend in backends

    def _signature(self, run_id: str, key_id: str, data: bytes) -> str:
        last_run_id, last_key_id, key = self._last
        if not key or (last_run_id, last_key_id) != (run_id, key_id):
            key = mac(self._secret(key_id), "spec", run_id)
            self._last = run_id, key_id, key
        return hmac.digest(key, data, "sha256").hex()

    def _secret(self, key_id: str | None) -> bytes:
        key = self._keys.get(self.signing_key_id if key_id is None else key_id)
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
    """A container's credentials: the seal of its attempt, and the digest of the spec that its worker verified."""

    sealing: AttemptSeal
    spec_digest: str

    @classmethod
    def of(cls, record: Record, sealing: AttemptSeal) -> AttemptCredentials:
        """Return the credentials of an attempt whose spec was verified."""
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
    """Return the SHA-256 of a record's spec as it is stored, in hex."""
    return hashlib.sha256(record.spec_bytes).hexdigest()


def _key(key_id: str, entry: Any, source: str) -> Key:
    if not key_id or not key_id.isprintable() or ":" in key_id:
        raise InvalidSettings(f"{source}: a key id must be printable, not empty and without a colon; {_FORM}")
    fields = {"secret": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, Mapping) or not isinstance(fields.get("secret"), str):
        raise InvalidSettings(f"{source}: key {key_id!r} isn't of the form {_FORM}")
    if unknown := fields.keys() - {"secret", "backends", "use"}:
        raise InvalidSettings(f"{source}: key {key_id!r} has an unknown field: {', '.join(sorted(map(str, unknown)))}")
    secret, backends, use = fields["secret"].encode(), fields.get("backends"), fields.get("use", SPECS)
    if len(secret) < _MIN_SECRET_BYTES:
        raise InvalidSettings(f"{source}: the secret of key {key_id!r} is shorter than {_MIN_SECRET_BYTES} bytes")
    if backends is not None and not (
        isinstance(backends, list | tuple) and all(isinstance(name, str) for name in backends)
    ):
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
