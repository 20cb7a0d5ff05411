"""``on_start`` and ``on_exit`` as environments carry them: by import name if that is installed, else sealed.

Environments make and read them. The runner and the workers call them like any function, which opens them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.support import signatures
from dispatcher.support.escaping import shown


@dataclass(frozen=True)
class Callback:
    """A function without arguments: its ``module:function`` or its sealed bytes. Compares by value."""

    ref: str | None = None
    sealed: bytes | None = None

    @classmethod
    def of(cls, function: Callable[[], Any], *, subject: str) -> Callback:
        """Return ``function`` as it travels.

        Raises:
            InvalidInput: it can't travel; names the object and where it is used.
        """
        from dispatcher.serialization import by_value, pack

        if isinstance(function, Callback):
            return function
        name = signatures.importable_name(function)
        if name is not None and not by_value.travels_by_value(name.partition(":")[0]):
            return cls(ref=name)
        return cls(sealed=pack(function, subject=f"{subject} {signatures.shown_name(function)}", error=InvalidInput))

    def function(self) -> Callable[[], Any]:
        """Import or open the function. Sealed bytes run code: the caller has verified their signature.

        Raises:
            InvalidInput: the name isn't found here.
            Permanent: sealed under another Python minor version, or a package is missing here.
        """
        from dispatcher.serialization import unpack

        function: Any = (
            signatures.resolve(self.ref, subject="callback") if self.ref is not None else unpack(self.sealed or b"")
        )
        if not callable(function):
            raise InvalidInput(f"callback {self!r} is no function but {type(function).__name__}")
        return function  # type: ignore[no-any-return]

    def __call__(self) -> Any:
        """Open the function and call it."""
        return self.function()()

    def __repr__(self) -> str:
        return self.ref or f"<sealed callback, {len(self.sealed or b'')} bytes>"

    def to_json(self) -> dict[str, str]:
        """Return a JSON object that :meth:`from_json` reads."""
        if self.ref is not None:
            return {"ref": self.ref}
        return {"sealed": base64.b64encode(self.sealed or b"").decode()}

    @classmethod
    def from_json(cls, data: Any, *, subject: str) -> Callback:
        """Return the callback that :meth:`to_json` described. Imports and opens nothing.

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
                    raise InvalidInput(f"{subject}: 'sealed' isn't base64: {error}") from None
        given = dict(data) if isinstance(data, Mapping) else data
        raise InvalidInput(
            f"{subject}: must be {{'ref': 'module:function'}} or {{'sealed': base64}}, got {shown(given)}"
        )


def same(value: Any, other: Any) -> bool:
    """Return True if two values are equal, or one is a :class:`Callback` as which the other, a function, travels."""
    if value is other or value == other:
        return True
    if not (callable(value) and callable(other)) or isinstance(value, Callback) == isinstance(other, Callback):
        return False
    try:
        return Callback.of(value, subject="callback") == Callback.of(other, subject="callback")
    except InvalidInput:  # a function that can't travel equals no other
        return False


def sealed_in(data: Any) -> list[str]:
    """Return the paths of sealed code in the JSON of an environment or a storage, such as ``on_exit``.

    Whoever submits such an environment signs that code, and a worker runs it. So call this first on JSON of others.
    """
    paths: list[str] = []
    todo: list[tuple[str, Any]] = [("", data)]
    while todo:
        place, value = todo.pop()
        if isinstance(value, Mapping):
            if set(value) == {"sealed"}:
                paths.append(place or "the whole")
            todo += [(f"{place}.{name}" if place else str(name), part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            todo += [(f"{place}[{index}]", part) for index, part in enumerate(value)]
    return sorted(paths)
