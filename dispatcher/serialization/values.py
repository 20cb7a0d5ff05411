"""Parameters, results and exceptions on their way: JSON where that gives the same value back, else a sealed pickle.

Called by the client (parameters out, results in) and by the runner (the other way round).
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
_DEEPEST = 200  # levels that travel as JSON: whoever reads them has as much of its stack left
_PLAIN = frozenset({int, bool, type(None), str})


def to_value(  # noqa: PLR0913 - one keyword per fact of the way
    obj: Any,
    *,
    what: str,
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
    """Make ``obj`` ready to travel.

    Args:
        obj: the object; what a container gave goes on unopened.
        what: its name in an error, as in ``the result of flow 'etl'``.
        limit_inline: most bytes that travel within the record; more go through ``put``.
        limit: most bytes at all.
        put: keeps bytes and gives their name.
        seal: of the attempt that gives it back, for a pickle; None where a signed spec covers the value.
        kind: what it is given back as.
        error: what to raise.
        setting: the variable that sets ``limit``, for the message.
        named_by_digest: ``put`` names what it keeps by its SHA-256, which isn't computed twice then.
        each: what an item of ``obj``, a mapping, is called in an error.

    Raises:
        InvalidInput: it can't be pickled, or is larger than ``limit``.
    """
    raw, codec = _bytes_of(obj, what, error, each)
    if len(raw) > limit:
        remedy = f", or raise {setting}" if setting else ""
        raise error(
            f"{what}: {len(raw):,} bytes are more than the limit of {limit:,} bytes; "
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
    """The object again. A pickle is verified before it is opened.

    Args:
        value: what travelled.
        get: gives the bytes of a blob; its KeyError for an unknown one passes through.
        seal: of the attempt that gave it back.
        kind: what it was given back as.
        trusted: a verified spec holds the digest, so no ``mac`` is asked for.
        each: what an item of the object, a mapping, is called in an error.

    Raises:
        SealBroken: the bytes aren't those that were sealed, or there is no key to tell.
        Permanent: the pickle can't be opened in this process.
    """
    raw = _raw(value, get)
    digest = hashlib.sha256(raw).hexdigest()
    if not hmac.compare_digest(digest.encode(), value.digest.encode(errors="replace")):
        raise SealBroken(f"a {value.codec} value of {value.size} bytes was changed on its way: its digest differs")
    if value.codec == JSON:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):  # whoever may write records wrote it
            raise SealBroken(f"a JSON value of {value.size} bytes can't be read") from None
    if value.codec != PICKLE:
        raise SealBroken(f"unknown codec {value.codec!r}: the other side runs another release")
    if not trusted:
        if seal is None:
            raise SealBroken("a pickled value can't be verified without a signing key; see `dispatcher keygen`")
        seal.check(value.mac, kind, value.codec, digest)
    return unpack(raw, each=each)


def _bytes_of(obj: Any, what: str, error: type[InvalidInput], each: str) -> tuple[bytes, str]:
    """The bytes that travel for ``obj``, and their codec."""
    if isinstance(obj, Unopened):
        return obj.data, PICKLE
    if isinstance(obj, RaisedInside):
        if obj.data is None:
            raise error(f"{what}: it couldn't leave its container")
        return obj.data, PICKLE
    text = as_json(obj)
    return (text, JSON) if text is not None else (pack(obj, what=what, error=error, each=each), PICKLE)


def _raw(value: Value, get: Callable[[str], bytes]) -> bytes:
    if value.inline is None:
        return get(value.blob or "")
    try:
        return value.inline.encode() if value.codec == JSON else base64.b64decode(value.inline, validate=True)
    except (binascii.Error, ValueError):
        raise SealBroken("an inline value was changed on its way: it isn't base64") from None


def as_json(obj: Any) -> bytes | None:
    """JSON text that gives an equal value of the same types, or None."""
    if not _is_plain(obj):
        return None
    try:
        return _dump(obj).encode()
    except (ValueError, RecursionError):  # lone surrogates, integers of thousands of digits, very deep lists
        return None


def _is_plain(obj: Any) -> bool:
    """Return True if JSON has the very types of ``obj``, all the way down, and that isn't far. Shared parts would come
    back as copies: no."""
    seen: set[int] = set()
    level = [obj]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind in _PLAIN:
                continue
            if kind is float:
                if not math.isfinite(one):
                    return False
            elif (kind is not list and kind is not dict) or id(one) in seen:
                return False
            else:
                seen.add(id(one))
                if kind is dict and any(type(name) is not str for name in one):
                    return False
                below.extend(one.values() if kind is dict else one)
        if not below:
            return True
        level = below
    return False
