"""Tracebacks and messages as a user wants to read them: without our frames, bounded, without lone surrogates."""

from __future__ import annotations

import traceback
from pathlib import Path

from dispatcher.support.escaping import encodable

_MOST = 64 * 1024
_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / name}/" for name in ("dispatcher", "backends", "workers"))


def trace_of(error: BaseException) -> str:
    """The traceback's text without frames of ours; at most 64 KiB of its end."""
    try:
        told = traceback.TracebackException.from_exception(error)
        _strip(told, set())
        text = "".join(told.format())
    except BaseException:  # whatever an exception's own methods raise
        text = f"{type(error).__qualname__} (its traceback can't be formatted)\n"
    return encodable(text if len(text) <= _MOST else f"…\n{text[-_MOST:]}")


def message_of(error: BaseException) -> str:
    """``str(error)``, bounded, also where that raises."""
    try:
        text = str.__str__(str(error))
    except BaseException:  # whatever it is
        text = ""
    return encodable(text if len(text) <= 2000 else f"{text[:2000]}…")


def _strip(told: traceback.TracebackException | None, seen: set[int]) -> None:
    if told is None or id(told) in seen:
        return
    seen.add(id(told))
    told.stack = traceback.StackSummary.from_list([one for one in told.stack if not one.filename.startswith(_OURS)])
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        _strip(other, seen)
