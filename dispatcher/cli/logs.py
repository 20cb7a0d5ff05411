"""``logs`` and ``events``: what a run printed, and what happened to it."""

from __future__ import annotations

import click

from dispatcher.cli.common import Globals, common, option_json, pass_globals
from dispatcher.cli.runs import RUN
from dispatcher.cli.terminal import echo, print_json_line

FOLLOW = click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")


@click.command()
@RUN
@FOLLOW
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line.")
@click.option("--attempt", type=click.IntRange(min=1), help="The lines of this attempt alone.")
@option_json
@common
@pass_globals
def logs(known: Globals, run_id: str, follow: bool, timestamps: bool, attempt: int | None, as_json: bool) -> None:
    """Print what a run printed and logged, in order."""
    from dispatcher.cli.formatting import clock, log_line
    from dispatcher.cli.lookup import find
    from dispatcher.inspection.as_json import line_json

    with known.client() as client:
        for line in find(client, run_id).logs(follow=follow):
            if attempt is not None and line.attempt != attempt:
                continue
            if as_json:
                print_json_line(line_json(line))
            else:
                echo(f"{clock(line.time)}  {log_line(line)}" if timestamps else log_line(line))


@click.command()
@RUN
@FOLLOW
@option_json
@common
@pass_globals
def events(known: Globals, run_id: str, follow: bool, as_json: bool) -> None:
    """Print what happened to a run."""
    from dispatcher.cli.formatting import event_line
    from dispatcher.cli.lookup import find
    from dispatcher.inspection.as_json import event_json

    with known.client() as client:
        for event in find(client, run_id).events(follow=follow):
            if as_json:
                print_json_line(event_json(event))
            else:
                echo(event_line(event))
