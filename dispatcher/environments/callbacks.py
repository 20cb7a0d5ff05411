"""``on_start`` and ``on_exit`` on their way: by import name where that is installed, else sealed; opened when called.

Made and read by environments; the runner and the workers call them like any function.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.support import signatures


@dataclass(frozen=True)
class Callback:
    """A function of no argument: its ``module:function``, or sealed bytes. One of both is set. Compares by value."""

    ref: str | None = None
    sealed: bytes | None = None

    @classmethod
    def of(cls, function: Callable[[], Any], *, what: str) -> Callback:
        """The way in which ``function`` travels.

        Raises:
            InvalidInput: it can't; names the object and where it is used.
        """
        from dispatcher.serialization import by_value, pack

        if isinstance(function, Callback):
            return function
        name = signatures.importable_name(function)
        if name is not None and not by_value.travels_by_value(name.partition(":")[0]):
            return cls(ref=name)
        return cls(sealed=pack(function, subject=f"{what} {signatures.shown_name(function)}", error=InvalidInput))

    def function(self) -> Callable[[], Any]:
        """Import or open it. Sealed bytes run code here: their caller has verified the signature over them.

        Raises:
            InvalidInput: the name isn't found here.
            Permanent: sealed under another Python minor version, or a package is missing here.
        """
        from dispatcher.serialization import unpack

        found: Any = (
            signatures.resolve(self.ref, subject="callback") if self.ref is not None else unpack(self.sealed or b"")
        )
        if not callable(found):
            raise InvalidInput(f"callback {self!r} is no function but {type(found).__name__}")
        return found  # type: ignore[no-any-return]

    def __call__(self) -> Any:
        """Call it."""
        return self.function()()

    def __repr__(self) -> str:
        return self.ref or f"<sealed callback, {len(self.sealed or b'')} bytes>"

    def to_json(self) -> dict[str, str]:
        """A JSON object that :meth:`from_json` reads."""
        if self.ref is not None:
            return {"ref": self.ref}
        return {"sealed": base64.b64encode(self.sealed or b"").decode()}

    @classmethod
    def from_json(cls, data: Any, *, what: str) -> Callback:
        """The inverse of :meth:`to_json`; imports and opens nothing.

        Raises:
            InvalidInput: it is no such object.
        """
        match data:
            case {"ref": str(ref), **rest} if not rest and ref.partition(":")[2]:
                return cls(ref=ref)
            case {"sealed": str(text), **rest} if not rest:
                try:
                    return cls(sealed=base64.b64decode(text, validate=True))
                except binascii.Error as error:
                    raise InvalidInput(f"{what}: 'sealed' isn't base64: {error}") from None
        shown = dict(data) if isinstance(data, Mapping) else data
        raise InvalidInput(f"{what}: must be {{'ref': 'module:function'}} or {{'sealed': base64}}, got {shown!r}")


def same(one: Any, other: Any) -> bool:
    """Return True if two values are equal, or two functions travel alike, one of them being what was made of the
    other."""
    if one is other or one == other:
        return True
    if not (callable(one) and callable(other)) or isinstance(one, Callback) == isinstance(other, Callback):
        return False
    try:
        return Callback.of(one, what="callback") == Callback.of(other, what="callback")
    except InvalidInput:  # what can't travel is like nothing else
        return False


def sealed_in(data: Any) -> list[str]:
    """Return the paths of sealed code in the JSON of an environment or a storage, such as ``on_exit``.

    Whoever submits such an environment signs that code, and a worker runs it: of others' JSON, ask this first.
    """
    found: list[str] = []
    todo: list[tuple[str, Any]] = [("", data)]
    while todo:
        place, value = todo.pop()
        if isinstance(value, Mapping):
            if set(value) == {"sealed"}:
                found.append(place or "the whole")
            todo += [(f"{place}.{name}" if place else str(name), part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            todo += [(f"{place}[{index}]", part) for index, part in enumerate(value)]
    return sorted(found)
