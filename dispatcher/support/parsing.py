"""Parse untrusted bytes: bounded, typed, and with a single error. Used wherever stored or received data are read.

Many may write to the server that records, events, routes, workers, reports and messages come from. Whatever an entry
holds, its parser returns a value or raises :class:`~dispatcher.errors.Malformed`; readers of many entries skip it.

A release knows the fields, states, causes and kinds of its time. A field never changes its type or its meaning, so
additions of other releases can be ignored: unknown fields are skipped, and an unknown word of an enumeration is read as
its ``UNKNOWN``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from dispatcher.errors import InvalidInput, Malformed
from dispatcher.support.ids import is_run_id

E = TypeVar("E", bound=StrEnum)

#: Most bytes of a JSON document, and its deepest nesting of lists and objects.
MOST = 16 * 2**20
DEEPEST = 100

#: The highest whole number that Lua, JSON and sorted sets hold without loss.
HIGHEST = 2**53

#: The latest time, in seconds since the epoch: the year 5138.
LATEST = 1e11

#: Most characters of the name of a run, a worker, a label or a queue.
LONGEST_NAME = 1000

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")

# A string, up to its end or the end of the document, so that each character is read once; or a bracket elsewhere.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|([\]}])', re.DOTALL)

_missing: Any = object()


def read_json(raw: bytes | str, subject: str, *, most: int = MOST) -> Any:
    """Parse a JSON document.

    Args:
        raw: the document; bytes are UTF-8.
        subject: its name in an error.
        most: its most bytes.

    Raises:
        Malformed: it is too long or too deep, isn't JSON, or holds a number that isn't finite.
    """
    data = raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass")
    bounded(data, subject, most)
    try:
        return _decode(raw if isinstance(raw, str) else raw.decode())  # json.loads would accept UTF-16, too
    except (ValueError, RecursionError) as error:  # also for invalid UTF-8 and for huge numbers
        raise Malformed(f"{subject}: {_reason(error)}") from None


def bounded(data: bytes, subject: str, most: int) -> None:
    """Check the size and the nesting of a JSON document.

    Raises:
        Malformed: it is too long or too deep.
    """
    if len(data) > most:
        raise Malformed(f"{subject}: {len(data):,} bytes are more than {most:,}")
    if data.count(b"[") + data.count(b"{") > DEEPEST and _is_deep(data):
        raise Malformed(f"{subject}: lists and objects are nested more than {DEEPEST} deep")


def read_object(raw: bytes | str, subject: str, *, most: int = MOST) -> Fields:
    """Parse a JSON object.

    Raises:
        Malformed: as for :func:`read_json`, or it isn't an object.
    """
    return Fields(read_json(raw, subject, most=most), subject)


class Fields:
    """The fields of an object, each checked as it is read by name. Other fields are ignored.

    Args:
        data: the parsed value.
        subject: its name in an error.

    Raises:
        Malformed (also by each method): it isn't an object, or the field is missing without a default, has another
            type, or is out of range.
    """

    def __init__(self, data: Any, subject: str) -> None:
        if type(data) is not dict and not isinstance(data, Mapping):
            raise Malformed(f"{subject}: must be an object, not {_kind(data)}")
        self.data: Mapping[str, Any] = data
        self.subject = subject

    def get(self, name: str, default: Any = _missing) -> Any:
        """Return a field of any type."""
        value = self.data.get(name, default)
        if value is _missing:
            raise Malformed(f"{self.subject}: {name} is missing")
        return value

    def text(self, name: str, default: Any = _missing, *, most: int = MOST) -> str:
        """Return text of any characters."""
        value = self.get(name, default)
        if not isinstance(value, str) or len(value) > most:
            self._wrong(name, "text", value)
        return value

    def name(self, name: str, default: Any = _missing) -> str:
        """Return a name: text that is short and can be encoded as UTF-8."""
        value = self.data.get(name)
        if type(value) is str and len(value) <= LONGEST_NAME and value.isascii():  # fast path: a claim reads a dozen
            return value
        return self._named(name, self.text(name, default))

    def names(self, name: str, default: Any = _missing) -> tuple[str, ...]:
        """Return a list of names."""
        if not self.data.get(name, default):  # most lists of names are empty
            return self._list(name, default)
        return tuple(self._named(name, item) for item in self._list(name, default))

    def texts(self, name: str, default: Any = _missing) -> tuple[str, ...]:
        """Return a list of texts."""
        items = self._list(name, default)
        if not all(isinstance(item, str) for item in items):
            self._wrong(name, "a list of text", items)
        return items

    def optional_text(self, name: str) -> str | None:
        """Return text, or None if it is null or missing."""
        return None if self.data.get(name) is None else self.text(name)

    def whole(self, name: str, default: Any = _missing, *, least: int = 0) -> int:
        """Return a whole number from ``least`` to :data:`HIGHEST`."""
        value = self.get(name, default)
        if type(value) is not int or not least <= value <= HIGHEST:
            self._wrong(name, "a whole number", value)
        return value

    def number(self, name: str, default: Any = _missing, *, most: float = LATEST) -> float:
        """Return a number from 0 to ``most``."""
        value = self.get(name, default)
        if type(value) not in {int, float} or not 0 <= value <= most:
            self._wrong(name, f"a number from 0 to {most:g}", value)
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a number, or None if it is null or missing."""
        return None if self.data.get(name) is None else self.number(name)

    def flag(self, name: str, default: Any = _missing) -> bool:
        """Return a boolean."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
        return value

    def object(self, name: str, default: Any = _missing) -> Mapping[str, Any]:
        """Return an object."""
        value = self.get(name, default)
        if type(value) is not dict and not isinstance(value, Mapping):
            self._wrong(name, "an object", value)
        return value

    def optional_object(self, name: str) -> Mapping[str, Any] | None:
        """Return an object, or None if it is null or missing."""
        return None if self.data.get(name) is None else self.object(name)

    def but(self, names: Iterable[str]) -> dict[str, Any]:
        """Return all fields except ``names``."""
        excluded = frozenset(names)
        return {name: value for name, value in self.data.items() if name not in excluded}

    def _list(self, name: str, default: Any) -> tuple[Any, ...]:
        value = self.get(name, default)
        if not isinstance(value, list | tuple):
            self._wrong(name, "a list", value)
        return tuple(value)

    def _named(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not is_name(value):
            self._wrong(name, f"text of at most {LONGEST_NAME} characters", value)
        return value

    def _wrong(self, name: str, must: str, value: Any) -> NoReturn:
        # Names of fields may be untrusted, too.
        shown = name if name.isascii() and name.isidentifier() and len(name) < 50 else "a field"
        raise Malformed(f"{self.subject}: {shown} must be {must}, not {_kind(value)}")


def word(kind: type[E], value: Any, subject: str) -> E:
    """Return a member of an enumeration; ``UNKNOWN`` for a word that this release doesn't know.

    Raises:
        Malformed: it isn't a word.
    """
    if not isinstance(value, str) or not is_name(value):
        raise Malformed(f"{subject}: must be a word, not {_kind(value)}")
    try:
        return kind(value)
    except ValueError:
        return kind["UNKNOWN"]


def is_name(text: str) -> bool:
    """Return True if text is short and can be encoded as UTF-8."""
    if len(text) > LONGEST_NAME:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def decoded(raw: bytes, subject: str, *, most: int = MOST) -> str:
    """Decode bytes as text.

    Raises:
        Malformed: they aren't UTF-8, or too many.
    """
    if len(raw) > most:
        raise Malformed(f"{subject}: {len(raw):,} bytes are more than {most:,}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{subject}: isn't UTF-8") from None


def name_of(raw: bytes, subject: str) -> str:
    """Decode bytes as a name.

    Raises:
        Malformed: they aren't UTF-8, or too many.
    """
    text = decoded(raw, subject, most=4 * LONGEST_NAME)
    if len(text) > LONGEST_NAME:
        raise Malformed(f"{subject}: more than {LONGEST_NAME} characters")
    return text


def run_id_of(raw: bytes) -> str:
    """Decode bytes as a run's id.

    Raises:
        Malformed: they can't be one.
    """
    if not raw.isascii() or not is_run_id(raw.decode()):
        raise Malformed("run id: must be letters, digits, '.', '_' and '-'")
    return raw.decode()


def whole_of(raw: bytes | str, subject: str, *, least: int = 0) -> int:
    """Parse a whole number as we write it: only digits.

    Raises:
        Malformed: it has another form, or is out of range.
    """
    text = raw if isinstance(raw, str) else decoded(raw, subject, most=100)
    if _WHOLE.fullmatch(text) is None or not least <= int(text) <= HIGHEST:
        raise Malformed(f"{subject}: must be a whole number from {least} to {HIGHEST}")
    return int(text)


def number_of(raw: bytes | str, subject: str) -> float:
    """Parse a time or a duration in seconds.

    Raises:
        Malformed: it isn't a number from 0 to :data:`LATEST`.
    """
    try:
        value = float(raw) if len(raw) < 100 else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value <= LATEST:
        raise Malformed(f"{subject}: must be a number from 0 to {LATEST:g}")
    return value


def valid(make: Any, subject: str, **arguments: Any) -> Any:
    """Call ``make``, a constructor that checks users' input, with stored values.

    Raises:
        Malformed: the values don't pass its checks.
    """
    try:
        return make(**arguments)
    except InvalidInput as error:
        name = str(error).partition(":")[0]
        raise Malformed(f"{subject}: {name if name.isidentifier() else 'a value'} is out of range") from None


def _is_deep(data: bytes) -> bool:
    """Return True if brackets are nested more than :data:`DEEPEST` deep."""
    depth = 0
    for match in _BRACKETS.finditer(data):
        if match.lastindex == 1:
            depth += 1
            if depth > DEEPEST:
                return True
        elif match.lastindex == 2:
            depth -= 1
    return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} isn't a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


# Shared: making a decoder takes longer than parsing most documents.
_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode


def _reason(error: BaseException) -> str:
    match error:
        case json.JSONDecodeError():
            return f"isn't JSON, at character {error.pos}"
        case UnicodeDecodeError():
            return "isn't UTF-8"
        case RecursionError():
            return "is too deep"
        case _:
            return "holds a number that can't be read"


def _kind(value: Any) -> str:
    """Name the type of a value in JSON's terms. The value itself is untrusted and not shown."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "such a number"
        case str():
            return "such text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return type(value).__name__
