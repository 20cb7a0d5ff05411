"""``logs`` and ``events``: the log lines and the lifecycle events of a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.runs import RUN, Since
from dispatcher.cli.terminal import echo, print_json_line

if TYPE_CHECKING:
    from dispatcher.client.run import Run
    from dispatcher.records.logs import Line

FOLLOW = click.option("-f", "--follow", is_flag=True, help="Follow until the run has ended.")


@click.command()
@RUN
@FOLLOW
@click.option("-t", "--timestamps", is_flag=True, help="Print the time before each line.")
@click.option("--attempt", type=click.IntRange(min=1), help="Print only the lines of this attempt.")
@click.option("-n", "--tail", type=click.IntRange(min=1), help="Print only so many last lines, and those that follow.")
@click.option("--since", type=Since(), help="Print only lines since: 30s, 5m, 2h, or 2025-03-01T12:00.")
@option_json
@common
@pass_global_options
def logs(
    global_options: GlobalOptions, /, *, run_id: str, follow: bool, timestamps: bool, attempt: int | None,
    tail: int | None, since: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the lines that a run printed and logged."""
    from dispatcher.cli.formatting import log_line
    from dispatcher.cli.lookup import find
    from dispatcher.inspection.as_json import line_json
    from dispatcher.support.durations import format_clock

    with global_options.client() as client:
        for line in _lines(find(client, run_id), follow=follow, tail=tail, attempt=attempt):
            if (attempt is not None and line.attempt != attempt) or (since is not None and line.time < since):
                continue
            if as_json:
                print_json_line(line_json(line))
            else:
                echo(f"{format_clock(line.time)}  {log_line(line)}" if timestamps else log_line(line))


def _lines(run: Run[Any], *, follow: bool, tail: int | None, attempt: int | None) -> Iterator[Line]:
    """Yield a run's lines, or its last ones; with ``follow`` those that come, too."""
    if tail is None:
        yield from run.logs(follow=follow)
        return
    last = run.session.records.logs.tail(run.id, tail, attempt=attempt)
    yield from last
    if follow:
        lines = run.logs(follow=True)
        if last:
            lines = islice(dropwhile(lambda line: line != last[-1], lines), 1, None)
        yield from lines


@click.command()
@RUN
@FOLLOW
@option_json
@common
@pass_global_options
def events(global_options: GlobalOptions, run_id: str, follow: bool, as_json: bool) -> None:
    """Print the lifecycle events of a run."""
    from dispatcher.cli.formatting import event_line
    from dispatcher.cli.lookup import find
    from dispatcher.inspection.as_json import event_json

    with global_options.client() as client:
        for event in find(client, run_id).events(follow=follow):
            if as_json:
                print_json_line(event_json(event))
            else:
                echo(event_line(event))
