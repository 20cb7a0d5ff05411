r"""Escape untrusted text for display, so that it can't send control sequences to a terminal or forge a line.

Text from records, messages, clusters and containers may come from anybody. Special characters are shown as Python
writes them in a string: ``\x1b`` for ESC, ``\r``, ``\n``, ``\u202e``. Backslashes stay single, since this is for
people; programs get JSON.
"""

from __future__ import annotations

import re

from dispatcher.support.short_repr import short_repr

#: Most characters of a value in an error message.
LONGEST = 80

# Control characters of both sets; marks that reverse or hide text; separators that may act as line ends; surrogates.
_MARKS = (
    "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)

_IN_LINE = re.compile(f"[\x00-\x08\x0a-\x1f{_MARKS}]")

#: Matches what is escaped in a text of several lines.
IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_MARKS}]")


def escaped(text: str) -> str:
    """Escape ``text`` for use in one line. Only tabs stay as they are."""
    return text if text.isprintable() else _IN_LINE.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Escape a text of several lines. Tabs and line ends stay as they are."""
    return text if text.isprintable() else IN_LINES.sub(_escape, text)


def shown(value: object) -> str:
    """Return a value for an error message: its repr, escaped and truncated. No more of it is read than is shown."""
    text = escaped(short_repr(value, LONGEST)[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def article(noun: str) -> str:
    """Return a noun with its article: ``an int``, ``a dict``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: ``1 flow``, ``2 flows``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def encodable(text: str) -> str:
    r"""Escape lone surrogates as ``\ud800``, so that UTF-8 can encode the text before it is stored."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
