"""The reading of bytes that others wrote: bounded, typed, and with one error. For whoever parses what is stored or
sent.

Records, events, routes, workers, reports and messages come from a server to which many may write. Whatever an entry
holds, its parser gives a value or raises :class:`~dispatcher.errors.Malformed`; who reads many leaves that entry out.

A release knows the fields, states, causes and kinds of its time. A field never changes its type or its meaning, so that
what another release added can be left aside: unknown fields are ignored, and an unknown word of an enumeration is read
as that enumeration's ``UNKNOWN``.
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

#: Most bytes of one JSON document, and how deep lists and objects may lie in each other in it.
MOST = 16 * 2**20
DEEPEST = 100

#: The highest whole number: what Lua, JSON and sorted sets hold without loss.
HIGHEST = 2**53

#: The latest time, in seconds since the epoch: the year 5138.
LATEST = 1e11

#: Most characters of a name: of a run, a worker, a label, a queue.
LONGEST_NAME = 1000

_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")

# A string, to its end or to the end of all, so that each character is looked at once; or a bracket outside of strings.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|([\]}])', re.DOTALL)

_missing: Any = object()


def read_json(raw: bytes | str, what: str, *, most: int = MOST) -> Any:
    """The value of a JSON document.

    Args:
        raw: the document; bytes are UTF-8.
        what: its name in an error.
        most: bytes above which it isn't read.

    Raises:
        Malformed: it is too long or too deep, isn't JSON, or holds a number that isn't finite.
    """
    data = raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass")
    bounded(data, what, most)
    try:
        return _decode(raw if isinstance(raw, str) else raw.decode())  # json.loads would read UTF-16, too
    except (ValueError, RecursionError) as error:  # also bytes that aren't UTF-8, and numbers of thousands of digits
        raise Malformed(f"{what}: {_reason(error)}") from None


def bounded(data: bytes, what: str, most: int) -> None:
    """Check that a JSON document may be parsed.

    Raises:
        Malformed: it is too long or too deep.
    """
    if len(data) > most:
        raise Malformed(f"{what}: {len(data):,} bytes are more than {most:,}")
    if data.count(b"[") + data.count(b"{") > DEEPEST and _is_deep(data):
        raise Malformed(f"{what}: lists and objects lie more than {DEEPEST} deep in each other")


def read_object(raw: bytes | str, what: str, *, most: int = MOST) -> Fields:
    """The fields of a JSON object.

    Raises:
        Malformed: as :func:`read_json`, or it is no object.
    """
    return Fields(read_json(raw, what, most=most), what)


class Fields:
    """Fields of an object, taken by name, each checked. Names that nobody asks for don't matter.

    Args:
        data: what was parsed.
        what: its name in an error.

    Raises:
        Malformed (also each method): it is no object, or the field is missing without a default, or of another type,
            or out of range.
    """

    def __init__(self, data: Any, what: str) -> None:
        if type(data) is not dict and not isinstance(data, Mapping):
            raise Malformed(f"{what}: must be an object, not {_kind(data)}")
        self.data: Mapping[str, Any] = data
        self.what = what

    def get(self, name: str, default: Any = _missing) -> Any:
        """A field as it is."""
        value = self.data.get(name, default)
        if value is _missing:
            raise Malformed(f"{self.what}: {name} is missing")
        return value

    def text(self, name: str, default: Any = _missing, *, most: int = MOST) -> str:
        """Text, of any characters."""
        value = self.get(name, default)
        if not isinstance(value, str) or len(value) > most:
            self._wrong(name, "text", value)
        return value

    def name(self, name: str, default: Any = _missing) -> str:
        """Text that names something: short, and such that it can be written as UTF-8."""
        value = self.data.get(name)
        if (
            type(value) is str and len(value) <= LONGEST_NAME and value.isascii()
        ):  # nearly all: each claim reads a dozen
            return value
        return self._named(name, self.text(name, default))

    def names(self, name: str, default: Any = _missing) -> tuple[str, ...]:
        """A list of names."""
        if not self.data.get(name, default):  # most lists of names are empty
            return self._list(name, default)
        return tuple(self._named(name, one) for one in self._list(name, default))

    def texts(self, name: str, default: Any = _missing) -> tuple[str, ...]:
        """A list of texts."""
        found = self._list(name, default)
        if not all(isinstance(one, str) for one in found):
            self._wrong(name, "a list of text", found)
        return found

    def optional_text(self, name: str) -> str | None:
        """Text; None, or missing, is None."""
        return None if self.data.get(name) is None else self.text(name)

    def whole(self, name: str, default: Any = _missing, *, least: int = 0) -> int:
        """A whole number from ``least`` up to :data:`HIGHEST`."""
        value = self.get(name, default)
        if type(value) is not int or not least <= value <= HIGHEST:
            self._wrong(name, "a whole number", value)
        return value

    def number(self, name: str, default: Any = _missing, *, most: float = LATEST) -> float:
        """A number from 0 up to ``most``."""
        value = self.get(name, default)
        if type(value) not in {int, float} or not 0 <= value <= most:
            self._wrong(name, f"a number from 0 to {most:g}", value)
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A number; None, or missing, is None."""
        return None if self.data.get(name) is None else self.number(name)

    def flag(self, name: str, default: Any = _missing) -> bool:
        """True or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
        return value

    def object(self, name: str, default: Any = _missing) -> Mapping[str, Any]:
        """An object."""
        value = self.get(name, default)
        if type(value) is not dict and not isinstance(value, Mapping):
            self._wrong(name, "an object", value)
        return value

    def optional_object(self, name: str) -> Mapping[str, Any] | None:
        """An object; None, or missing, is None."""
        return None if self.data.get(name) is None else self.object(name)

    def but(self, known: Iterable[str]) -> dict[str, Any]:
        """The fields that aren't ``known``."""
        mine = frozenset(known)
        return {name: value for name, value in self.data.items() if name not in mine}

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
        shown = (
            name if name.isascii() and name.isidentifier() and len(name) < 50 else "a field"
        )  # some are others' words
        raise Malformed(f"{self.what}: {shown} must be {must}, not {_kind(value)}")


def word(kind: type[E], value: Any, what: str) -> E:
    """A word of an enumeration; one that this release doesn't know is its ``UNKNOWN``.

    Raises:
        Malformed: it is no word.
    """
    if not isinstance(value, str) or not is_name(value):
        raise Malformed(f"{what}: must be a word, not {_kind(value)}")
    try:
        return kind(value)
    except ValueError:
        return kind["UNKNOWN"]


def is_name(text: str) -> bool:
    """Return True if text is short, and can be written as UTF-8."""
    if len(text) > LONGEST_NAME:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def decoded(raw: bytes, what: str, *, most: int = MOST) -> str:
    """Bytes as text.

    Raises:
        Malformed: they aren't UTF-8, or too many.
    """
    if len(raw) > most:
        raise Malformed(f"{what}: {len(raw):,} bytes are more than {most:,}")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{what}: isn't UTF-8") from None


def name_of(raw: bytes, what: str) -> str:
    """Bytes as a name.

    Raises:
        Malformed: they aren't UTF-8, or too many.
    """
    text = decoded(raw, what, most=4 * LONGEST_NAME)
    if len(text) > LONGEST_NAME:
        raise Malformed(f"{what}: more than {LONGEST_NAME} characters")
    return text


def run_id_of(raw: bytes) -> str:
    """Bytes as a run's id.

    Raises:
        Malformed: they can't be one.
    """
    if not raw.isascii() or not is_run_id(raw.decode()):
        raise Malformed("run id: must be letters, digits, '.', '_' and '-'")
    return raw.decode()


def whole_of(raw: bytes | str, what: str, *, least: int = 0) -> int:
    """A whole number as we write it: digits alone.

    Raises:
        Malformed: it is none, or out of range.
    """
    text = raw if isinstance(raw, str) else decoded(raw, what, most=100)
    if _WHOLE.fullmatch(text) is None or not least <= int(text) <= HIGHEST:
        raise Malformed(f"{what}: must be a whole number from {least} to {HIGHEST}")
    return int(text)


def number_of(raw: bytes | str, what: str) -> float:
    """A time, or a length of time, in seconds.

    Raises:
        Malformed: it is no finite number from 0 to :data:`LATEST`.
    """
    try:
        value = float(raw) if len(raw) < 100 else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value <= LATEST:
        raise Malformed(f"{what}: must be a number from 0 to {LATEST:g}")
    return value


def valid(make: Any, what: str, **arguments: Any) -> Any:
    """Return what ``make`` makes of arguments that people's input must pass as well.

    Raises:
        Malformed: they don't.
    """
    try:
        return make(**arguments)
    except InvalidInput as error:
        name = str(error).partition(":")[0]
        raise Malformed(f"{what}: {name if name.isidentifier() else 'a value'} is out of range") from None


def _is_deep(data: bytes) -> bool:
    """Return True if brackets lie more than :data:`DEEPEST` deep in each other."""
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
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


# One for all: to make one takes longer than to read most documents.
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
    """Return the kind of a value, in JSON's words; never the value itself, which is somebody else's."""
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
