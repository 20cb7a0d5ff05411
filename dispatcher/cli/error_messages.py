"""Errors as one line with a remedy, and as an exit code. Used by :mod:`dispatcher.cli.root`."""

from __future__ import annotations

import click

from dispatcher.cli.terminal import Painted, Part
from dispatcher.errors import (
    DispatcherError,
    InvalidInput,
    MissingExtra,
    Permanent,
    SealBroken,
    ServerUnavailable,
    Transient,
    UnknownRun,
)

#: Exit code for bad input, as in click.
USAGE = 2
#: Exit code where the server can't be reached or the command itself failed: it says nothing about any run.
NO_ANSWER = 6

_BAD_INPUT = (InvalidInput, UnknownRun, MissingExtra, SealBroken, Permanent)


class Failure(click.ClickException):
    """The error of a command, ready to print."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # an attribute in click, annotated as the class's

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return the failure for ``error``. Backends wrap errors of settings, too; then the cause counts."""
        if isinstance(error, Transient | Permanent) and isinstance(error.__cause__, DispatcherError):
            error = error.__cause__
        return cls(_one_line(error), USAGE if isinstance(error, _BAD_INPUT) else NO_ANSWER)


def describe(problem: click.ClickException) -> tuple[Part, ...]:
    """Return the line to print. A usage error points to ``--help``."""
    text = " ".join(problem.format_message().split()).rstrip(".")
    context = getattr(problem, "ctx", None)
    if isinstance(problem, click.UsageError) and context is not None and not text.endswith(")"):
        text = f"{text[:1].lower()}{text[1:]} (see `{context.command_path} --help`)"
    return Painted("error:", "red"), f" {text}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, Transient | Permanent):
        return f"{text} (`dispatcher doctor --backend NAME` looks closer)"
    if not isinstance(error, DispatcherError):
        return f"{type(error).__name__}: {text} (--debug shows where)"
    if text.endswith(")") or "`dispatcher" in text:
        return text
    if isinstance(error, ServerUnavailable):
        return f"{text} (`dispatcher doctor` looks closer)"
    if isinstance(error, UnknownRun):
        return f"{text} (`dispatcher list` shows the runs kept)"
    return text
