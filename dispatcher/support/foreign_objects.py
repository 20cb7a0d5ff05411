"""Text of users' objects for messages, bounded and safe: their ``__str__`` and ``__repr__`` may raise or be endless.

Used wherever a message shows an object or an exception of a user.
"""

from __future__ import annotations

import reprlib

from dispatcher.errors import INTERRUPTS
from dispatcher.support.escaping import escaped, escaped_lines

_MOST = 2000

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100


def text_of(obj: object, *, most: int = _MOST) -> str:
    """Return ``str(obj)``, escaped and truncated to ``most`` characters; empty if it raises."""
    try:
        text = str.__str__(str(obj))  # plain characters, also of a subclass of str
    except INTERRUPTS:
        raise
    except BaseException:  # __str__ may raise anything
        return ""
    return escaped_lines(text if len(text) <= most else f"{text[:most]}…")


def repr_of(obj: object) -> str:
    """Return a short ``repr(obj)`` in one line; the name of its class if it raises."""
    try:
        return escaped(str.__str__(_short.repr(obj)))
    except INTERRUPTS:
        raise
    except BaseException:  # __repr__ may raise anything
        return f"<{type(obj).__qualname__}>"


def describe_exception(error: BaseException) -> str:
    """Return an exception as the last line of a traceback shows it: ``ValueError: no luck``."""
    name, text = type(error).__qualname__, text_of(error)
    return f"{name}: {text}" if text else name
