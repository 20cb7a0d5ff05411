"""Words of objects that aren't ours, for messages: their own methods may raise, or never come to an end of it.

Called wherever a message of ours shows an object or an exception of a user's.
"""

from __future__ import annotations

import reprlib

from dispatcher.errors import INTERRUPTS
from dispatcher.support.escaping import escaped, escaped_lines

_MOST = 2000

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100


def text_of(obj: object, *, most: int = _MOST) -> str:
    """``str(obj)``, at most so many characters, what could steer a terminal as escapes; empty where it raises."""
    try:
        text = str.__str__(str(obj))  # of a class derived from str, the characters alone
    except INTERRUPTS:
        raise
    except BaseException:  # whatever a foreign __str__ raises
        return ""
    return escaped_lines(text if len(text) <= most else f"{text[:most]}…")


def repr_of(obj: object) -> str:
    """A short ``repr(obj)`` in one line; where it raises, what kind of object it is."""
    try:
        return escaped(str.__str__(_short.repr(obj)))
    except INTERRUPTS:
        raise
    except BaseException:  # whatever a foreign __repr__ raises
        return f"<{type(obj).__qualname__}>"


def describe_exception(error: BaseException) -> str:
    """An exception as the last line of a traceback shows it: ``ValueError: no luck``."""
    name, text = type(error).__qualname__, text_of(error)
    return f"{name}: {text}" if text else name
