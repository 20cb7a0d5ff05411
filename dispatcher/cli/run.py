"""``run`` and ``submit``: start a flow, and follow it or not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.common import Globals, common, option_json, pass_globals
from dispatcher.cli.options import options, run_options
from dispatcher.cli.terminal import Painted, echo, echo_lines, print_json
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from dispatcher.cli.follow import Signals
    from dispatcher.cli.views import View
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.run import Run
    from dispatcher.runs.record import Record

TARGET = click.argument("target", metavar="TARGET")


@click.command()
@TARGET
@run_options
@click.option("-q", "--quiet", is_flag=True, help="Show the result alone.")
@option_json
@common
@pass_globals
def run(known: Globals, /, target: str, quiet: bool, as_json: bool, **given: Any) -> int:
    """Run a flow, follow it to its end, and print its result.

    TARGET is module:flow (from the current directory) or file.py:flow. The exit code tells how it ended: 0 succeeded,
    1 failed, 3 crashed, 4 timed out, 5 cancelled; 2 is bad input, 6 a server that can't be reached. Ctrl-C, or SIGTERM,
    cancels the run and waits for its end; a second one leaves the run alone, and so does a closed terminal (SIGHUP).
    """
    from dispatcher.cli.follow import caught

    with caught() as signals:
        name, submit_it = _prepare(target, given)
        with known.client() as client:
            here = client.link.inline
            with redirect_stdout(sys.stderr) if here and (quiet or as_json) else nullcontext():
                made = submit_it(client)
            view = _view(quiet=quiet, as_json=as_json, here=here)
            return _follow(client, made, view, signals, title=f"run {made.id} of flow {name}", as_json=as_json)


@click.command()
@TARGET
@run_options
@option_json
@common
@pass_globals
def submit(known: Globals, /, target: str, as_json: bool, **given: Any) -> int:
    """Submit a flow, print the run's id, and leave.

    TARGET and options are those of `run`.
    """
    from dispatcher.cli.lookup import record_of
    from dispatcher.inspection.as_json import run_json

    _, submit_it = _prepare(target, given)
    with known.client() as client:
        made = submit_it(client)
        if as_json:
            print_json(run_json(record_of(client, made)))
        else:
            echo(made.id)
    return 0


def _prepare(target: str, given: dict[str, Any]) -> tuple[str, Callable[[Dispatcher], Run[Any]]]:
    """Read everything that may be wrong before anything is connected; the flow's name, and how to submit it."""
    from dispatcher.cli.targets import load, parameters
    from dispatcher.flows.flow import Flow

    flow = load(target, Flow, what="TARGET")
    values = flow.bind(parameters(flow.fn, given["pairs"]))
    keywords = options(given)
    return given["name"] or flow.name, lambda client: client.submit(flow, values, **keywords)


def _view(*, quiet: bool, as_json: bool, here: bool) -> View:
    """Return the view that shows the run; a flow that ran here has printed its lines already."""
    from dispatcher.cli.views import LiveView, PlainView, QuietView

    if quiet:
        return QuietView()
    if sys.stdout.isatty() and not as_json and not here:
        return LiveView()
    return PlainView(logs=not here, logs_aside=as_json)


def _follow(client: Dispatcher, made: Run[Any], view: View, signals: Signals, *, title: str, as_json: bool) -> int:
    from dispatcher.cli.follow import Watch
    from dispatcher.cli.formatting import EXIT_CODES
    from dispatcher.cli.lookup import explained, record_of, result_of
    from dispatcher.inspection.as_json import run_json

    view.begin(title)
    try:
        ended = Watch(made, view, signals, lambda: explained(client, made)).to_end()
    finally:
        view.close()
    if not ended:
        echo(f"left run {made.id}; `dispatcher show {made.id}` finds it", err=True)
        return signals.exit_code
    record = record_of(client, made)
    result = result_of(client, record)
    if as_json:
        print_json({**run_json(record), "result": result.value})
    elif record.state is State.SUCCEEDED:
        result.echo()
    else:
        _print_end(record)
    return EXIT_CODES.get(record.state, 1)


def _print_end(record: Record) -> None:
    from dispatcher.cli.formatting import STYLES, why

    asked_for = record.state is State.CANCELLED  # where it stood then is in `show`
    if record.outcome is not None and record.outcome.traceback and not asked_for:
        echo_lines(record.outcome.traceback.rstrip(), err=True)
    said = why(record)
    echo(Painted(str(record.state), STYLES[record.state]), f"  {said}" if said else "", err=True)
