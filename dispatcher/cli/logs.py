"""``logs`` and ``events``: the log lines and the lifecycle events of a run."""

from __future__ import annotations

import click

from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.runs import RUN
from dispatcher.cli.terminal import echo, print_json_line

FOLLOW = click.option("-f", "--follow", is_flag=True, help="Follow until the run has ended.")


@click.command()
@RUN
@FOLLOW
@click.option("-t", "--timestamps", is_flag=True, help="Print the time before each line.")
@click.option("--attempt", type=click.IntRange(min=1), help="Print only the lines of this attempt.")
@option_json
@common
@pass_global_options
def logs(
    global_options: GlobalOptions, run_id: str, follow: bool, timestamps: bool, attempt: int | None, as_json: bool
) -> None:
    """Print the lines that a run printed and logged."""
    from dispatcher.cli.formatting import log_line
    from dispatcher.cli.lookup import find
    from dispatcher.inspection.as_json import line_json
    from dispatcher.support.durations import format_clock

    with global_options.client() as client:
        for line in find(client, run_id).logs(follow=follow):
            if attempt is not None and line.attempt != attempt:
                continue
            if as_json:
                print_json_line(line_json(line))
            else:
                echo(f"{format_clock(line.time)}  {log_line(line)}" if timestamps else log_line(line))


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
