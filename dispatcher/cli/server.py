"""``up`` and ``status``: start the laptop server; show a server with its queues and workers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.terminal import Painted, Part, echo, print_json, print_table

if TYPE_CHECKING:
    from dispatcher.inspection.server_snapshot import ServerSnapshot
    from dispatcher.laptop import LaptopStatus
    from dispatcher.settings import Settings


@click.command()
@option_json
@common
@pass_global_options
def up(global_options: GlobalOptions, as_json: bool) -> None:
    """Start the laptop server, and keep it running until `down`."""
    from dispatcher import laptop

    laptop_status = laptop.up(laptop_settings(global_options))
    if as_json:
        print_json(_laptop_json(laptop_status))
        return
    echo(f"the laptop server is up: {laptop_status.url}")
    echo(f"data: {laptop_status.state_dir}")


@click.command()
@option_json
@common
@pass_global_options
def status(global_options: GlobalOptions, as_json: bool) -> None:
    """Show the server, its queues and workers. Starts nothing."""
    settings = global_options.settings()
    url, laptop, snapshot = _inspect(settings) if settings.url is not None else _inspect_laptop(settings)
    if snapshot is None:
        assert laptop is not None
        _not_running(laptop, as_json=as_json)
        return
    view = _json(settings, url, snapshot, laptop)
    if as_json:
        print_json(view)
    else:
        _print(view, snapshot, laptop)


def _inspect_laptop(settings: Settings) -> tuple[str, LaptopStatus | None, ServerSnapshot | None]:
    """Inspect the laptop server. Try again if it stops in the middle, which may happen several times."""
    from dispatcher.errors import ServerUnavailable

    for _ in range(4):
        with suppress(ServerUnavailable):
            return _inspect(settings)
    return _inspect(settings)


def _inspect(settings: Settings) -> tuple[str, LaptopStatus | None, ServerSnapshot | None]:
    """Return the server's URL, the laptop server's status if it is that one, and a snapshot if it runs.

    Raises:
        ServerUnavailable: it can't be reached.
    """
    from dispatcher import laptop as laptop_server
    from dispatcher.connect import connect
    from dispatcher.inspection.server_snapshot import take_snapshot

    laptop = laptop_server.status(settings) if settings.url is None else None
    url = settings.url if laptop is None else laptop.url
    if url is None or (laptop is not None and not laptop.running):
        return "", laptop, None
    records = connect(settings.but(url=url))
    try:
        return url, laptop, take_snapshot(records)
    finally:
        records.close()


def laptop_settings(global_options: GlobalOptions) -> Settings:
    """Load the settings for a command of the laptop server. Note on stderr if they name another server."""
    settings = global_options.settings()
    if settings.url is not None:
        source = "--url" if global_options.url else "DISPATCHER__URL"
        echo(f"note: {source} names another server, which this command doesn't touch", err=True)
    return settings


def _not_running(laptop: LaptopStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "server": None,
                "laptop": _laptop_json(laptop),
                "open_runs": None,
                "refused": {},
                "queues": [],
                "workers": [],
            }
        )
        return
    echo("the laptop server is not running (`dispatcher up` starts it, and so does the next submit)")
    echo(f"data: {laptop.state_dir}")


def _json(settings: Settings, url: str, snapshot: ServerSnapshot, laptop: LaptopStatus | None) -> dict[str, Any]:
    from dispatcher.inspection.as_json import queue_json, worker_json
    from dispatcher.support.urls import shown

    return {
        "server": shown(url),
        "broker": None if settings.broker_url is None else shown(settings.broker_url),
        "instance": snapshot.instance,
        "laptop": None if laptop is None else _laptop_json(laptop),
        "open_runs": snapshot.open_runs,
        "refused": {str(reason): asdict(tally) for reason, tally in snapshot.refused.items()},
        "queues": [queue_json(queue) for queue in snapshot.queues],
        "workers": [worker_json(worker) for worker in snapshot.workers],
    }


def _laptop_json(laptop: LaptopStatus) -> dict[str, Any]:
    return {
        "running": laptop.running,
        "state_dir": str(laptop.state_dir),
        "pid": laptop.pid,
        "url": laptop.url,
        "stays": laptop.stays,
        "programs": [{"pid": program.process.pid, "command": program.command} for program in laptop.programs],
        "workers": [
            {"pid": worker.process.pid, "environment": worker.prefix, "directory": worker.cwd, "log": str(worker.log)}
            for worker in laptop.workers
        ],
    }


def _print(view: dict[str, Any], snapshot: ServerSnapshot, laptop: LaptopStatus | None) -> None:
    from dispatcher.inspection.places import place_rows

    echo(f"server     {view['server']}{' (laptop)' if laptop is not None else ''}")
    if view["broker"]:
        echo(f"broker     {view['broker']}")
    echo(f"instance   {snapshot.instance}")
    if laptop is not None:
        stays = "until `dispatcher down`" if laptop.stays else "until its last program has ended"
        echo(f"stays      {stays}; programs: {len(laptop.programs)}; data: {laptop.state_dir}")
    echo(f"open runs  {snapshot.open_runs}")
    if snapshot.refused:
        echo(f"refused    {_refused(snapshot)}")
    echo()
    if snapshot.queues:
        print_table(["QUEUE", "WAITING", "WORKERS", "LAST USED"], _queue_rows(snapshot))
    else:
        echo("no queues: no run was submitted yet")
    echo()
    if snapshot.workers:
        print_table(["WORKER", "SERVES", "LABELS", "AT ONCE", "PYTHON", "UP FOR"], _worker_rows(snapshot))
    else:
        remedy = "the next submit starts one" if laptop is not None else "`dispatcher worker` starts one"
        echo(f"no workers ({remedy})")
    if rows := place_rows(snapshot.workers):
        echo()
        print_table(["CLUSTER", "IDENTITY", "WORKERS"], [list(row) for row in rows])


def _refused(snapshot: ServerSnapshot) -> str:
    from dispatcher.support.durations import format_duration

    counts = ", ".join(reason.times(tally.count) for reason, tally in snapshot.refused.items())
    last = max(tally.last for tally in snapshot.refused.values())
    return f"{counts}; the last {format_duration(snapshot.now - last)} ago"


def _queue_rows(snapshot: ServerSnapshot) -> list[list[Part]]:
    from dispatcher.support.durations import format_duration

    return [
        [
            queue.name,
            Painted(str(queue.waiting), "yellow" if queue.waiting else ""),
            Painted(str(len(queue.workers)), "red" if queue.waiting and not queue.workers else ""),
            f"{format_duration(snapshot.now - queue.last_used)} ago",
        ]
        for queue in snapshot.queues
    ]


def _worker_rows(snapshot: ServerSnapshot) -> list[list[Part]]:
    from dispatcher.runs.routing import listed
    from dispatcher.support.durations import format_duration

    rows: list[list[Part]] = []
    for worker in snapshot.workers:
        labels = "every" if worker.offer.every_label else listed(worker.offer.labels) or "-"
        backends = ",".join(sorted(worker.offer.backends)) + (f" @{worker.offer.scope}" if worker.offer.scope else "")
        age = format_duration(snapshot.now - worker.started_at)
        rows.append([worker.id, backends, labels, str(worker.concurrency), worker.python, age])
    return rows
