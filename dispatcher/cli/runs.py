"""``list``, ``show``, ``cancel`` and ``explain``: find, inspect and cancel runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.options import DURATION
from dispatcher.cli.terminal import Painted, Part, echo, echo_lines, print_json, print_table
from dispatcher.errors import InvalidInput
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from dispatcher.cli.lookup import RunStatus
    from dispatcher.records.logs import Line
    from dispatcher.runs.record import Record

#: Columns that a terminal keeps for the last column of ``list``, where it has text.
LEAST_WHY = 30

RUN = click.argument("run_id", metavar="RUN", shell_complete=completions.runs)


class Since(click.ParamType):  # type: ignore[type-arg]  # click's is generic in its newest releases alone
    """A point in time: a duration ago (2h), or an ISO date or time in this machine's time zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since the epoch."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            pass
        try:
            return time.time() - DURATION.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a time; write how long ago (30m, 2h, 7d) or a date (2025-03-01)", param, ctx)


@click.command("list")
@click.option(
    "--state", type=click.Choice([str(s) for s in State], case_sensitive=False), help="Only runs in this state."
)
@click.option("--label", shell_complete=completions.labels, help="Only runs whose environment has this label.")
@click.option("--flow", shell_complete=completions.flows, help="Only runs of this flow.")
@click.option("--tag", shell_complete=completions.tags, help="Only runs with this tag.")
@click.option("--since", type=Since(), help="Only runs submitted since: 30m, 2h, 7d, or 2025-03-01.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Most runs to list.")
@click.option("--all", "everything", is_flag=True, help="List all, however many.")
@click.option(
    "--full", is_flag=True, help="Print whole ids; by default as many of their last characters as are unique."
)
@option_json
@common
@pass_global_options
def list_runs(
    global_options: GlobalOptions, /, state: str | None, limit: int, everything: bool, full: bool, as_json: bool,
    **filters: Any,
) -> None:  # fmt: skip
    """List runs, newest first."""
    from dispatcher.cli.lookup import find_many, short_ids, status_of, total

    filters["state"] = None if state is None else State(state.upper())
    with global_options.client() as client:
        matches = find_many(client, limit=None if everything else limit, **filters)
        records = matches if everything else matches[:limit]
        status = status_of(client, *records)
        short = {} if full or as_json else short_ids(client, records)
        count = total(client, filters) if len(matches) > len(records) else None
    if as_json:
        print_json([status.json(record) for record in records])
    elif records:
        print_table(*_table(records, status.waits, short), cut=2, least_last=LEAST_WHY)
    else:
        echo("no runs", err=True)
    if len(matches) > len(records) and not as_json:
        echo(f"{len(records)} of {'more' if count is None else f'{count:,}'} runs; --limit, --all", err=True)


@click.command()
@RUN
@click.option("--request", "whole", is_flag=True, help="Print the whole request to the backend, such as a Job.")
@option_json
@common
@pass_global_options
def show(global_options: GlobalOptions, run_id: str, whole: bool, as_json: bool) -> None:
    """Show a run: its state, its timeline, and how it ended.

    RUN is a run's id, or enough of its last characters to be unique; @last is the newest run, @last-1 the one before.
    """
    from dispatcher.cli.formatting import phases
    from dispatcher.cli.lookup import find, last_lines, record_of, result_of, status_of
    from dispatcher.cli.requests import rendered
    from dispatcher.client.tail import first_lines
    from dispatcher.inspection.as_json import event_json, line_json

    with global_options.client() as client:
        run = find(client, run_id)
        record = record_of(client, run)
        status = status_of(client, record)
        events = list(run.events())
        result = result_of(client, record)
        tail = last_lines(run) if record.state not in {State.SUCCEEDED, State.QUEUED} else []
        first = first_lines(client.session.records, run.id) if record.times else {}
    if as_json:
        details = {"events": [event_json(event) for event in events], "log_tail": [line_json(line) for line in tail]}
        request = {"request": (record.request or {}).get("body")} if whole else {}
        print_json({**status.json(record), **request, "result": result.value, **details})
        return
    _show(record, status, phases(events, record.times, first), tail)
    if whole:
        echo()
        echo_lines(rendered(record, global_options.settings()) or "its current attempt has no request to a backend")
    if record.state is State.SUCCEEDED:
        echo()
        result.echo()


@click.command()
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True, shell_complete=completions.runs)
@common
@pass_global_options
def cancel(global_options: GlobalOptions, run_ids: Sequence[str]) -> int:
    """Cancel runs. A run that has ended, or whose on_exit is running, stays as it is."""
    from dispatcher.cli.formatting import cancel_status
    from dispatcher.cli.lookup import find, record_of

    with global_options.client() as client:
        runs = [find(client, text) for text in run_ids]  # all must exist before one is cancelled
        for run in runs:
            before = record_of(client, run)
            if before.terminal:
                echo(f"{run.id}  {before.state} already")
                continue
            try:
                run.cancel()
            except InvalidInput:
                if not record_of(client, run).terminal:  # else it has ended meanwhile
                    raise
            echo(f"{run.id}  {cancel_status(record_of(client, run))}")
    return 0


@click.command()
@RUN
@option_json
@common
@pass_global_options
def explain(global_options: GlobalOptions, run_id: str, as_json: bool) -> None:
    """Explain why a run is not running, or what its state is."""
    from dispatcher.cli.lookup import explained, find, record_of

    with global_options.client() as client:
        run = find(client, run_id)
        lines = explained(client, run)
        state = record_of(client, run).state
    if as_json:
        print_json({"id": run.id, "state": state, "explanation": lines})
        return
    for line in lines:
        echo(line)


def _table(
    records: Sequence[Record], waits: Mapping[str, str], short: Mapping[str, str]
) -> tuple[list[str], list[list[Part]]]:
    from dispatcher.cli.formatting import STYLES, length, why
    from dispatcher.runs.routing import listed
    from dispatcher.support.durations import format_duration

    now = time.time()
    labelled = any(record.spec.labels for record in records)
    rows: list[list[Part]] = []
    for record in records:
        row: list[Part] = [short.get(record.id, record.id), Painted(record.state, STYLES[record.state])]
        row += [record.spec.options.name or record.spec.flow]
        row += [listed(record.spec.labels) or "-"] if labelled else []
        row += [format_duration(now - record.created_at), length(record, now), why(record, waits[record.id])]
        rows.append(row)
    return ["RUN", "STATE", "FLOW", *(["LABELS"] if labelled else []), "AGE", "RAN", "WHY"], rows


def _show(record: Record, status: RunStatus, rows: Sequence[tuple[str, str, str, str]], tail: Sequence[Line]) -> None:
    from dispatcher.cli.formatting import STYLES, facts, log_line
    from dispatcher.cli.requests import summary

    shown = facts(record, waiting=status.waits[record.id], holder=status.holders.get(record.owner, ""))
    shown += summary(record).items()
    width = max(len(name) for name, _ in shown)
    for name, text in shown:
        echo(f"{name:<{width}}  ", Painted(text, STYLES[record.state]) if name == "state" else text)
    echo()
    for clock, passed, name, note in rows:
        echo(f"{clock}  {passed:>9}  {name}{f'  ({note})' if note else ''}")
    outcome = record.outcome
    if outcome is not None and outcome.traceback:
        echo()
        echo_lines(outcome.traceback.rstrip())
    elif tail:
        echo()
        echo("last lines (`dispatcher logs` prints all):")
        for line in tail:
            echo(f"  {log_line(line)}")
    if outcome is not None and outcome.report:
        echo()
        echo("crash report:")
        for text in outcome.report.splitlines():
            echo(f"  {text}")
