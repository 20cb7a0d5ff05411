"""Encoding of parameters, results and exceptions: as JSON if that gives the same value back, else as a sealed pickle.

Used by the client (parameters out, results in) and by the runner (the other way round).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from typing import Any

from dispatcher.errors import InvalidInput, SealBroken
from dispatcher.runs.value import Value
from dispatcher.serialization.pickles import pack, unpack
from dispatcher.serialization.seals import AttemptSeal, Returned
from dispatcher.serialization.unopened import RaisedInside, Unopened

JSON = "json"
PICKLE = "pickle"
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MAX_DEPTH = 200  # levels that travel as JSON: every reader has as much stack left
_SCALARS = frozenset({int, bool, type(None), str})


def to_value(  # noqa: PLR0913 - one keyword per property of the value
    obj: Any,
    *,
    subject: str,
    limit_inline: int,
    limit: int,
    put: Callable[[bytes], str],
    seal: AttemptSeal | None,
    kind: Returned = Returned.RESULT,
    error: type[InvalidInput] = InvalidInput,
    setting: str = "",
    named_by_digest: bool = False,
    each: str = "",
) -> Value:
    """Encode ``obj``.

    Args:
        obj: the object. An unopened one, from a container, stays unopened.
        subject: the object's name in an error, as in ``the result of flow 'etl'``.
        limit_inline: most bytes that travel within the record; larger values go through ``put``.
        limit: most bytes of a value.
        put: stores bytes and returns their name.
        seal: seals a pickle that an attempt returns; None if a signed spec covers the value.
        kind: the kind of value that the attempt returns.
        error: the class to raise.
        setting: the variable that sets ``limit``, for the message.
        named_by_digest: ``put`` returns the SHA-256 of the bytes, which isn't computed again then.
        each: the name, in an error, of an item of ``obj``, a mapping.

    Raises:
        InvalidInput: the object can't be pickled, or is larger than ``limit``.
    """
    raw, codec = _bytes_of(obj, subject, error, each)
    if len(raw) > limit:
        remedy = f", or raise {setting}" if setting else ""
        raise error(
            f"{subject}: {len(raw):,} bytes are more than the limit of {limit:,} bytes; "
            f"keep the data elsewhere and pass its address{remedy}"
        )
    blob = put(raw) if len(raw) > limit_inline else None
    digest = blob if blob and named_by_digest else hashlib.sha256(raw).hexdigest()
    mac = seal.of(kind, codec, digest) if seal is not None and codec == PICKLE else ""
    if blob is not None:
        return Value(codec=codec, blob=blob, digest=digest, size=len(raw), mac=mac)
    inline = raw.decode() if codec == JSON else base64.b64encode(raw).decode()
    return Value(codec=codec, inline=inline, digest=digest, size=len(raw), mac=mac)


def from_value(
    value: Value,
    *,
    get: Callable[[str], bytes],
    seal: AttemptSeal | None,
    kind: Returned = Returned.RESULT,
    trusted: bool = False,
    each: str = "",
) -> Any:
    """Decode a value. A pickle is verified before it is opened.

    Args:
        value: the encoded value.
        get: returns the bytes of a blob; its KeyError for an unknown one passes through.
        seal: the seal of the attempt that returned the value.
        kind: the kind of value that the attempt returned.
        trusted: a verified spec holds the digest, so no ``mac`` is needed.
        each: the name, in an error, of an item of the object, a mapping.

    Raises:
        SealBroken: the bytes aren't those that were sealed, or there is no key to verify them.
        Permanent: the pickle can't be opened in this process.
    """
    raw = _raw(value, get)
    digest = hashlib.sha256(raw).hexdigest()
    if not hmac.compare_digest(digest.encode(), value.digest.encode(errors="replace")):
        raise SealBroken(f"a {value.codec} value of {value.size} bytes was changed on its way: its digest differs")
    if value.codec == JSON:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):  # anybody who may write records can have written it
            raise SealBroken(f"a JSON value of {value.size} bytes can't be read") from None
    if value.codec != PICKLE:
        raise SealBroken(f"unknown codec {value.codec!r}: the other side runs another release")
    if not trusted:
        if seal is None:
            raise SealBroken("a pickled value can't be verified without a signing key; see `dispatcher keygen`")
        seal.check(value.mac, kind, value.codec, digest)
    return unpack(raw, each=each)


def _bytes_of(obj: Any, subject: str, error: type[InvalidInput], each: str) -> tuple[bytes, str]:
    """Return the bytes of ``obj``, and their codec."""
    if issubclass(type(obj), Unopened):  # isinstance asks for the object's __class__, which may raise
        return obj.data, PICKLE
    if issubclass(type(obj), RaisedInside):
        if obj.data is None:
            raise error(f"{subject}: it couldn't be sent from its container")
        return obj.data, PICKLE
    text = as_json(obj)
    return (text, JSON) if text is not None else (pack(obj, subject=subject, error=error, each=each), PICKLE)


def _raw(value: Value, get: Callable[[str], bytes]) -> bytes:
    if value.inline is None:
        return get(value.blob or "")
    try:
        return value.inline.encode() if value.codec == JSON else base64.b64decode(value.inline, validate=True)
    except (binascii.Error, ValueError):
        raise SealBroken("an inline value was changed on its way: it isn't base64") from None


def as_json(obj: Any) -> bytes | None:
    """Return JSON text that gives an equal value of the same types, or None if there is none."""
    if not _is_plain(obj):
        return None
    try:
        return _dump(obj).encode()
    except (ValueError, RecursionError):  # lone surrogates, integers of thousands of digits, very deep lists
        return None


def _is_plain(obj: Any) -> bool:
    """Return True if JSON has the exact types of ``obj`` at each level, and there aren't too many levels.

    False if a part occurs twice, since it would come back as two copies.
    """
    visited: set[int] = set()
    level = [obj]
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind in _SCALARS:
                continue
            if kind is float:
                if not math.isfinite(value):
                    return False
            elif (kind is not list and kind is not dict) or id(value) in visited:
                return False
            else:
                visited.add(id(value))
                if kind is dict and any(type(name) is not str for name in value):
                    return False
                below.extend(value.values() if kind is dict else value)
        if not below:
            return True
        level = below
    return False
