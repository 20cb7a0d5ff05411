"""``doctor``: checks of this installation, each problem with its remedy."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.terminal import Painted, echo, print_json
from dispatcher.support.hangup import on_hangup


@click.command()
@click.option(
    "--backend",
    metavar="NAME",
    shell_complete=completions.backends,
    help="Check that backend, too; for kubernetes this starts a pod.",
)
@option_json
@common
@pass_global_options
def doctor(global_options: GlobalOptions, backend: str | None, as_json: bool) -> int:
    """Check this installation and its server.

    Prints a remedy for each problem. Exits 1 if there is a problem; warnings don't count.
    """
    from dataclasses import asdict

    from dispatcher.admin.doctor import examine
    from dispatcher.inspection.finding import Level

    marks = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "red")}
    findings = []
    with _stopped_by_signals():
        for finding in examine(global_options.url, backend=backend):
            findings.append(finding)
            if as_json:
                continue
            word, color = marks[finding.level]
            echo(Painted(f"{word:<8}", color), f" {finding.subject:<12} {finding.text}")
            if finding.remedy:
                echo(f"{'':<21} → {finding.remedy}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    return 1 if any(finding.level is Level.PROBLEM for finding in findings) else 0


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, so that a check ends what it started."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, _leave)
    on_hangup(_leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)
