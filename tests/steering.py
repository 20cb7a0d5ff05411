"""Words as somebody writes them who wants to steer a terminal, forge a line or break what reads them."""

from __future__ import annotations

import re

STEERING = {
    "ESC": "\x1b[31m\x1b[2J",
    "OSC": "\x1b]0;title\x07\x1b]8;;http://evil\x1b\\",
    "NUL": "\x00",
    "BEL and BS": "\x07\x08",
    "CR": "\r",
    "VT and FF": "\x0b\x0c",
    "DEL": "\x7f",
    "C1": "\x9b2J\x85\x90\x9d",
    "bidi": "\u202e\u202a\u2066\u2069\u200e\u200f\u061c",
    "separators": "\u2028\u2029",
    "hidden": "\u200b\u2060\ufeff\U000e0041",
    "lone surrogate": "\ud800",
}

_STEERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def steers(text: str) -> bool:
    """Return True if something in it acts, but for tabs and line ends."""
    return _STEERS.search(text) is not None
