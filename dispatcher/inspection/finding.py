"""Findings of ``dispatcher doctor``: what was checked, how it stands, and the remedy. Backends make them, too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dispatcher.errors import MissingExtra


class Level(StrEnum):
    """The gravity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``remedy`` is empty where all is well."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs no remedy."""
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding of something that works now and may fail later."""
    return Finding(Level.WARNING, subject, text, remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding of something that doesn't work."""
    return Finding(Level.PROBLEM, subject, text, remedy)


def problem_of(subject: str, error: Exception, remedy: str) -> Finding:
    """Return the finding of an error. If an extra is missing, the remedy is to install it.

    The error's own advice to call the doctor is left out.
    """
    text = str(error).replace(", or `dispatcher doctor`", "")
    if isinstance(error, MissingExtra) and ": pip install " in text:
        text, _, requirement = text.rpartition(": pip install ")
        remedy = f"pip install {requirement}"
    return problem(subject, text, remedy)
