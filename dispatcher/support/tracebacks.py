"""Tracebacks and messages for users: bounded, without our own frames and without lone surrogates."""

from __future__ import annotations

import traceback

from dispatcher.errors import EngineError
from dispatcher.support.escaping import encodable
from dispatcher.support.own_packages import PACKAGES, ROOT

_MAX_LENGTH = 64 * 1024
_OURS = tuple(f"{ROOT / name}/" for name in PACKAGES)


def trace_of(error: BaseException) -> str:
    """Return the text of a traceback without our frames; at most the last 64 KiB."""
    try:
        report = traceback.TracebackException.from_exception(error)
        _strip(report, set())
        text = "".join(report.format())
    except BaseException:  # an exception's own methods may raise anything
        text = f"{type(error).__qualname__} (its traceback can't be formatted)\n"
    return encodable(text if len(text) <= _MAX_LENGTH else f"…\n{text[-_MAX_LENGTH:]}")


def message_of(error: BaseException) -> str:
    """Return ``str(error)``, truncated; empty if it raises."""
    try:
        text = str.__str__(str(error))
    except BaseException:  # __str__ may raise anything
        text = ""
    return encodable(text if len(text) <= 2000 else f"{text[:2000]}…")


def described(error: BaseException) -> str:
    """Return an error as people read it: its type and its message.

    The type of an error by which the engine decides is our own word for "try again", and left out.
    """
    message, name = message_of(error), type(error).__name__
    if isinstance(error, EngineError):
        return message or "no reason was given"
    return f"{name}: {message}" if message else name


def is_defect(error: BaseException) -> bool:
    """Return True if the traceback of an error helps: the engine foresees its own errors."""
    return not isinstance(error, EngineError)


def _strip(report: traceback.TracebackException | None, visited: set[int]) -> None:
    """Remove our frames from a traceback, and from those of its causes, contexts and groups."""
    if report is None or id(report) in visited:
        return
    visited.add(id(report))
    theirs = [frame for frame in report.stack if not frame.filename.startswith(_OURS)]
    report.stack = traceback.StackSummary.from_list(theirs)
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        _strip(other, visited)
