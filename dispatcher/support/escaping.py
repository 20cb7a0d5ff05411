r"""Words of others, ready to be shown: what could steer a terminal or forge a line stands there as an escape.

Words come from records, messages, clusters and containers, and so from anybody. Shown are ``\x1b`` for ESC, ``\r``,
``\n``, ``\u202e`` and so on, as Python writes them in a string. Backslashes stay single: this is for eyes, and what a
program is to read goes as JSON.
"""

from __future__ import annotations

import re

#: Most characters of a value that an error shows.
LONGEST = 80

# Control characters of both sets; marks that turn or hide text; separators that some take for line ends; surrogates.
_MARKS = (
    "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)

_IN_LINE = re.compile(f"[\x00-\x08\x0a-\x1f{_MARKS}]")

#: All that isn't shown as it is in a text of several lines.
IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_MARKS}]")


def escaped(text: str) -> str:
    """``text`` as a part of one line: of all that isn't to be shown as it is, tabs alone stay."""
    return text if text.isprintable() else _IN_LINE.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """The same for a text of several lines: line ends stay, too."""
    return text if text.isprintable() else IN_LINES.sub(_escape, text)


def shown(value: object) -> str:
    """A value as an error shows it: Python's own writing of it, as a part of one line, and not too long of it."""
    text = escaped(repr(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def article(noun: str) -> str:
    """A noun behind its article: ``an int``, ``a dict``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: ``1 flow``, ``2 flows``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def encodable(text: str) -> str:
    r"""``text`` with lone surrogates as ``\ud800``, so that UTF-8 carries it; for words on their way in."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
