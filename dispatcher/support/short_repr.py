"""The beginning of a value's repr, at a cost that doesn't grow with the value. Pure; for error messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_MOST_BITS = 14_000  # of an int that is written in digits; Python refuses a little more
_MOST_ENTRIES = 1_000  # of a collection with a repr of its own, which writes them all
_COLLECTIONS = (list, tuple, set, frozenset, dict, deque)


def short_repr(value: object, length: int) -> str:
    """Return the beginning of ``repr(value)``: the whole of it, or more than ``length`` characters.

    Lists, tuples, sets, dicts, texts and bytes are read only as far as they are written, also inside each other. An int
    of very many digits, a large collection of another type, and an object whose repr raises are described instead.
    """
    text = ""
    for piece in _Writer(length).pieces(value):
        text += piece
        if len(text) > length:
            break
    return text


class _Writer:
    """Writes values as Python does, which calls no method of a subclass but ``__repr__``.

    ``length``: the most characters that anybody reads.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._around: set[int] = set()  # ids of the containers that are being written

    def pieces(self, value: Any) -> Iterator[str]:
        """Yield the parts of a value's repr."""
        kind: Any = type(value)
        write = _WRITERS.get(kind.__repr__)
        if write is not None:
            yield from write(self, value)
        elif isinstance(value, _COLLECTIONS) and len(value) > _MOST_ENTRIES:
            yield f"<{type(value).__qualname__} of {len(value)}>"
        else:
            yield _repr(value)

    def text(self, value: str) -> Iterator[str]:
        """Yield the repr of a text."""
        yield str.__repr__(str.__getitem__(value, slice(self._length + 1)))

    def data(self, value: bytes | bytearray) -> Iterator[str]:
        """Yield the repr of bytes."""
        kind: Any = bytes if isinstance(value, bytes) else bytearray
        yield kind.__repr__(kind.__getitem__(value, slice(self._length + 1)))

    def number(self, value: int) -> Iterator[str]:
        """Yield an int's digits, or its size."""
        bits = int.bit_length(value)
        yield _repr(value) if bits <= _MOST_BITS else f"<int of {bits} bits>"

    def list(self, value: Any) -> Iterator[str]:
        """Yield the repr of a list."""
        return self._container(value, "[", map(self.pieces, list.__iter__(value)), "]")

    def tuple(self, value: Any) -> Iterator[str]:
        """Yield the repr of a tuple."""
        end = ",)" if tuple.__len__(value) == 1 else ")"
        return self._container(value, "(", map(self.pieces, tuple.__iter__(value)), end)

    def set(self, value: Any) -> Iterator[str]:
        """Yield the repr of a set or frozenset."""
        name = type(value).__name__
        kind: Any = set if isinstance(value, set) else frozenset
        if not kind.__len__(value):
            return iter((f"{name}()",))
        begin, end = ("{", "}") if type(value) is set else (f"{name}({{", "})")
        return self._container(value, begin, map(self.pieces, kind.__iter__(value)), end)

    def dict(self, value: Any) -> Iterator[str]:
        """Yield the repr of a dict."""
        return self._container(value, "{", (self._pair(*pair) for pair in dict.items(value)), "}")

    def _pair(self, key: Any, of_key: Any) -> Iterator[str]:
        yield from self.pieces(key)
        yield ": "
        yield from self.pieces(of_key)

    def _container(self, value: object, begin: str, entries: Iterable[Iterator[str]], end: str) -> Iterator[str]:
        if id(value) in self._around:
            yield f"{begin}...{end[-1]}"
            return
        self._around.add(id(value))
        yield begin
        for number, entry in enumerate(entries):
            if number:
                yield ", "
            yield from entry
        yield end
        self._around.discard(id(value))


_WRITERS: Mapping[Callable[[Any], str], Callable[[_Writer, Any], Iterator[str]]] = {
    str.__repr__: _Writer.text,
    bytes.__repr__: _Writer.data,
    bytearray.__repr__: _Writer.data,
    int.__repr__: _Writer.number,
    list.__repr__: _Writer.list,
    tuple.__repr__: _Writer.tuple,
    set.__repr__: _Writer.set,
    frozenset.__repr__: _Writer.set,
    dict.__repr__: _Writer.dict,
}


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # of the value's own repr
        return f"<{type(value).__qualname__}, whose repr raises {type(error).__name__}>"
