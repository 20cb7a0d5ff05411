"""``down``: stop the laptop server and its workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import GlobalOptions, common, pass_global_options
from dispatcher.cli.server import laptop_settings
from dispatcher.cli.terminal import echo

if TYPE_CHECKING:
    from dispatcher.laptop import LaptopStatus
    from dispatcher.runs.record import Record
    from dispatcher.settings import Settings

#: Most open runs that are listed.
_MAX_LISTED = 10


@click.command()
@click.option("--force", is_flag=True, help="Stop even while runs are open; running flows are ended.")
@common
@pass_global_options
def down(global_options: GlobalOptions, force: bool) -> None:
    """Stop the laptop server and its workers; its data are kept.

    Other programs that use the server go on, including workers and Flower that you started yourself; they are listed.
    """
    from dispatcher import laptop

    settings = laptop_settings(global_options)
    status = laptop.status(settings)
    if force:
        for line in _consequences(settings, status):
            echo(line, err=True)
    stopped = laptop.down(settings, force=force)
    for line in _left_alone(status) if stopped else ():
        echo(line, err=True)
    echo("the laptop server is down" if stopped else "the laptop server was not running")


def _consequences(settings: Settings, status: LaptopStatus) -> Iterator[str]:
    """Say what a forced stop ends, and how long it waits."""
    from dispatcher.laptop.server_commands import longest_stop

    for record in _open_runs(settings, status):
        yield f"open: run {record.id} of flow {record.spec.flow}, {record.state}"
    if (more := (status.open_runs or 0) - _MAX_LISTED) > 0:
        yield f"open: {more} more"
    for worker in status.workers:
        yield f"ending the worker of {worker.prefix}, process {worker.process.pid}"
    if status.workers and status.open_runs:
        grace = f"running flows get {settings.worker.drain:g} s and their on_exit"
        yield f"{grace}; waiting for at most {longest_stop(settings):g} s; other runs stay in the data"


def _open_runs(settings: Settings, status: LaptopStatus) -> list[Record]:
    from dispatcher.connect import connect
    from dispatcher.errors import ServerUnavailable
    from dispatcher.runs import indexes

    if not status.open_runs or status.url is None:
        return []
    with suppress(ServerUnavailable):
        records = connect(settings.but(url=status.url))
        try:
            ids = [run_id for run_id, _ in records.runs.members(indexes.OPEN, limit=_MAX_LISTED)]
            return [record for record in records.runs.get_many(ids) if record is not None]
        finally:
            records.close()
    return []


def _left_alone(status: LaptopStatus) -> Iterator[str]:
    """List the programs that use the server and don't end with it."""
    for program in status.programs:
        yield f"left alone, without a server now: process {program.process.pid} ({program.command})"
