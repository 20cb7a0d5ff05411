"""``down``: the laptop server's end, and what ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import Globals, common, pass_globals
from dispatcher.cli.server import about_laptop
from dispatcher.cli.terminal import echo

if TYPE_CHECKING:
    from dispatcher.laptop import Status
    from dispatcher.runs.record import Record
    from dispatcher.settings import Settings

#: As many open runs as are named.
_NAMED = 10


@click.command()
@click.option("--force", is_flag=True, help="Also while runs are open; running flows are ended.")
@common
@pass_globals
def down(known: Globals, force: bool) -> None:
    """Stop the laptop server and its workers; its data stay.

    Programs that use it are left alone, also workers and Flower that were started by hand; they are named.
    """
    from dispatcher import laptop

    settings = about_laptop(known)
    found = laptop.status(settings)
    if force:
        for line in _ends(settings, found):
            echo(line, err=True)
    stopped = laptop.down(settings, force=force)
    for line in _left_alone(found) if stopped else ():
        echo(line, err=True)
    echo("the laptop server is down" if stopped else "the laptop server was not running")


def _ends(settings: Settings, found: Status) -> Iterator[str]:
    """Yield sentences on what a stop by force ends and waits for."""
    from dispatcher.laptop.server_commands import longest_stop

    for record in _open_runs(settings, found):
        yield f"open: run {record.id} of flow {record.spec.flow}, {record.state}"
    if (more := (found.open_runs or 0) - _NAMED) > 0:
        yield f"open: {more} more"
    for worker in found.workers:
        yield f"ending the worker of {worker.prefix}, process {worker.process.pid}"
    if found.workers and found.open_runs:
        waits = f"flows that run get {settings.worker.drain:g} s and their on_exit"
        yield f"{waits}; waiting for {longest_stop(settings):g} s at most; other runs stay in the data"


def _open_runs(settings: Settings, found: Status) -> list[Record]:
    from dispatcher.connect import connect
    from dispatcher.errors import ServerUnavailable
    from dispatcher.runs import indexes

    if not found.open_runs or found.url is None:
        return []
    with suppress(ServerUnavailable):
        records = connect(settings.but(url=found.url))
        try:
            ids = [run_id for run_id, _ in records.runs.members(indexes.OPEN, limit=_NAMED)]
            return [one for one in records.runs.get_many(ids) if one is not None]
        finally:
            records.close()
    return []


def _left_alone(found: Status) -> Iterator[str]:
    """Programs that use the server and don't end with it."""
    for one in found.programs:
        yield f"left alone, without a server now: process {one.process.pid} ({one.command})"
