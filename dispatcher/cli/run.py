"""``run`` and ``submit``: start a flow, and follow it to its end or not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.options import options, run_options
from dispatcher.cli.terminal import Painted, echo, echo_lines, print_json
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from dispatcher.cli.follow import Signals
    from dispatcher.cli.views import View
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.run import Run
    from dispatcher.runs.record import Record

TARGET = click.argument("target", metavar="TARGET", shell_complete=completions.targets)


@click.command()
@TARGET
@run_options
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
@option_json
@common
@pass_global_options
def run(global_options: GlobalOptions, /, target: str, quiet: bool, as_json: bool, **values: Any) -> int:
    """Run a flow, follow it to its end, and print its result.

    TARGET is module:flow (from the current directory) or file.py:flow. The exit code tells how the run ended:
    0 succeeded, 1 failed, 3 crashed, 4 timed out, 5 cancelled. 2 means bad input, 6 that the server can't be reached.
    Ctrl-C or SIGTERM cancels the run and waits for its end. A second one leaves the run alone, and so does closing the
    terminal (SIGHUP).
    """
    from dispatcher.cli.follow import count_signals
    from dispatcher.support.urls import MEMORY

    with count_signals() as signals:
        name, submit_run = _prepare(target, values)
        with global_options.client(connect=False) as client:  # a request that is refused starts no laptop server
            inline = (client.settings.url or "").startswith(MEMORY)
            with redirect_stdout(sys.stderr) if inline and (quiet or as_json) else nullcontext():
                submitted = submit_run(client)
            view = _view(quiet=quiet, as_json=as_json, inline=inline)
            title = f"run {submitted.id} of flow {name}"
            return _follow(client, submitted, view, signals, title=title, as_json=as_json)


@click.command()
@TARGET
@run_options
@option_json
@common
@pass_global_options
def submit(global_options: GlobalOptions, /, target: str, as_json: bool, **values: Any) -> int:
    """Submit a flow, and print the run's id.

    TARGET and options are those of `run`.
    """
    from dispatcher.cli.lookup import record_of, status_of

    _, submit_run = _prepare(target, values)
    with global_options.client(connect=False) as client:
        submitted = submit_run(client)
        if as_json:
            record = record_of(client, submitted)
            print_json(status_of(client, record).json(record))
        else:
            echo(submitted.id)
    return 0


def _prepare(target: str, values: dict[str, Any]) -> tuple[str, Callable[[Dispatcher], Run[Any]]]:
    """Check all input before connecting. Return the name to show, and a function that submits the run."""
    from dispatcher.cli.targets import load, parameters
    from dispatcher.flows.flow import Flow

    flow = load(target, Flow, argument="TARGET")
    pairs, keywords = parameters(flow.fn, values["pairs"]), options(values)
    return values["name"] or flow.name, lambda client: client.submit(flow, pairs, **keywords)


def _view(*, quiet: bool, as_json: bool, inline: bool) -> View:
    """Return the view that shows the run. A flow that ran inline has printed its lines already."""
    from dispatcher.cli.views import LiveView, PlainView, QuietView

    if quiet:
        return QuietView()
    if sys.stdout.isatty() and not as_json and not inline:
        return LiveView()
    return PlainView(logs=not inline, logs_aside=as_json)


def _follow(client: Dispatcher, run: Run[Any], view: View, signals: Signals, *, title: str, as_json: bool) -> int:
    from dispatcher.cli.follow import Watch
    from dispatcher.cli.formatting import EXIT_CODES
    from dispatcher.cli.lookup import explained, record_of, result_of, status_of, waiting

    view.begin(title)
    try:
        ended = Watch(run, view, signals, lambda: explained(client, run), lambda: waiting(client, run)).to_end()
    finally:
        view.close()
    if not ended:
        echo(f"left run {run.id} alone; `dispatcher show {run.id}` shows it", err=True)
        return signals.exit_code
    record = record_of(client, run)
    result = result_of(client, record)
    if as_json:
        print_json({**status_of(client, record).json(record), "result": result.value})
    elif record.state is State.SUCCEEDED:
        result.echo()
    else:
        _print_end(record)
    return EXIT_CODES.get(record.state, 1)


def _print_end(record: Record) -> None:
    from dispatcher.cli.formatting import STYLES, why

    cancelled = record.state is State.CANCELLED  # `show` prints where the flow was then
    if record.outcome is not None and record.outcome.traceback and not cancelled:
        echo_lines(record.outcome.traceback.rstrip(), err=True)
    reason = why(record)
    echo(Painted(str(record.state), STYLES[record.state]), f"  {reason}" if reason else "", err=True)
