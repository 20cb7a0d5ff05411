"""``up`` and ``status``: the laptop server, and what lives around any server."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.common import Globals, common, option_json, pass_globals
from dispatcher.cli.terminal import Painted, Part, echo, print_json, print_table

if TYPE_CHECKING:
    from dispatcher.inspection.queues import QueueInfo
    from dispatcher.laptop import Status
    from dispatcher.records.base import Records
    from dispatcher.records.rejections import Tally, What
    from dispatcher.records.workers import WorkerInfo
    from dispatcher.settings import Settings


@click.command()
@option_json
@common
@pass_globals
def up(known: Globals, as_json: bool) -> None:
    """Start the laptop server, and let it stay until `down`."""
    from dispatcher import laptop as embedded

    stood = embedded.up(about_laptop(known))
    if as_json:
        print_json(_laptop_json(stood))
        return
    echo(f"the laptop server is up: {stood.url}")
    echo(f"data: {stood.state_dir}")


@click.command()
@option_json
@common
@pass_globals
def status(known: Globals, as_json: bool) -> None:
    """Show server, queues and workers. Starts nothing."""
    settings = known.settings()
    url, laptop, found = _look(settings) if settings.url is not None else _look_at_laptop(settings)
    if found is None:
        assert laptop is not None
        _not_running(laptop, as_json=as_json)
        return
    told = _json(settings, url, found, laptop)
    if as_json:
        print_json(told)
    else:
        _print(told, found, laptop)


def _look_at_laptop(settings: Settings) -> tuple[str, Status | None, Picture | None]:
    """The same, also where the laptop server stops between finding and asking it, again and again."""
    from dispatcher.errors import ServerUnavailable

    for _ in range(4):
        with suppress(ServerUnavailable):
            return _look(settings)
    return _look(settings)


def _look(settings: Settings) -> tuple[str, Status | None, Picture | None]:
    """The server's URL, the laptop server if it is that one, and what lives around it, if it runs.

    Raises:
        ServerUnavailable: it can't be reached.
    """
    from dispatcher import laptop as embedded
    from dispatcher.connect import connect

    laptop = embedded.status(settings) if settings.url is None else None
    url = settings.url if laptop is None else laptop.url
    if url is None or (laptop is not None and not laptop.running):
        return "", laptop, None
    records = connect(settings.but(url=url))
    try:
        return url, laptop, picture(records)
    finally:
        records.close()


@dataclass(frozen=True)
class Picture:
    """A picture of what lives around a server, at its time ``now``."""

    instance: str
    now: float
    open_runs: int
    queues: tuple[QueueInfo, ...]
    workers: tuple[WorkerInfo, ...]
    refused: Mapping[What, Tally]


def picture(records: Records) -> Picture:
    """Look at queues and workers."""
    from dispatcher.inspection.queues import queues
    from dispatcher.runs import indexes

    return Picture(
        instance=records.instance,
        now=records.runs.now(),
        open_runs=records.runs.count(indexes.OPEN),
        queues=tuple(queues(records)),
        workers=tuple(sorted(records.workers.live(), key=lambda one: one.started_at)),
        refused=records.refusals.tallies(),
    )


def about_laptop(known: Globals) -> Settings:
    """The settings, for a command that is about the laptop server alone."""
    settings = known.settings()
    if settings.url is not None:
        source = "--url" if known.url else "DISPATCHER__URL"
        echo(f"note: {source} names another server, which this command leaves alone", err=True)
    return settings


def _not_running(laptop: Status, *, as_json: bool) -> None:
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
    echo("the laptop server is not running (`dispatcher up` starts it, so does the next submit)")
    echo(f"data: {laptop.state_dir}")


def _json(settings: Settings, url: str, found: Picture, laptop: Status | None) -> dict[str, Any]:
    from dispatcher.inspection.as_json import queue_json, worker_json
    from dispatcher.support.urls import shown

    return {
        "server": shown(url),
        "broker": None if settings.broker_url is None else shown(settings.broker_url),
        "instance": found.instance,
        "laptop": None if laptop is None else _laptop_json(laptop),
        "open_runs": found.open_runs,
        "refused": {str(what): asdict(tally) for what, tally in found.refused.items()},
        "queues": [queue_json(queue) for queue in found.queues],
        "workers": [worker_json(worker) for worker in found.workers],
    }


def _laptop_json(laptop: Status) -> dict[str, Any]:
    return {
        "running": laptop.running,
        "state_dir": str(laptop.state_dir),
        "pid": laptop.pid,
        "url": laptop.url,
        "stays": laptop.stays,
        "programs": [{"pid": one.process.pid, "command": one.command} for one in laptop.programs],
        "workers": [
            {"pid": one.process.pid, "environment": one.prefix, "directory": one.cwd, "log": str(one.log)}
            for one in laptop.workers
        ],
    }


def _print(told: dict[str, Any], found: Picture, laptop: Status | None) -> None:
    echo(f"server     {told['server']}{' (laptop)' if laptop is not None else ''}")
    if told["broker"]:
        echo(f"broker     {told['broker']}")
    echo(f"instance   {found.instance}")
    if laptop is not None:
        stays = "until `dispatcher down`" if laptop.stays else "until its last program has left"
        echo(f"stays      {stays}; programs: {len(laptop.programs)}; data: {laptop.state_dir}")
    echo(f"open runs  {found.open_runs}")
    if found.refused:
        echo(f"refused    {_refused(found)}")
    echo()
    if found.queues:
        print_table(["QUEUE", "WAITING", "WORKERS", "LAST USED"], _queue_rows(found))
    else:
        echo("no queues: nothing was submitted yet")
    echo()
    if found.workers:
        print_table(["WORKER", "SERVES", "LABELS", "AT ONCE", "PYTHON", "UP FOR"], _worker_rows(found))
    else:
        remedy = "the next submit starts one" if laptop is not None else "`dispatcher worker` starts one"
        echo(f"no workers ({remedy})")


def _refused(found: Picture) -> str:
    from dispatcher.cli.formatting import span

    counts = ", ".join(what.times(one.count) for what, one in found.refused.items())
    return f"{counts}; the last {span(found.now - max(one.last for one in found.refused.values()))} ago"


def _queue_rows(found: Picture) -> list[list[Part]]:
    from dispatcher.cli.formatting import span

    return [
        [
            one.name,
            Painted(str(one.waiting), "yellow" if one.waiting else ""),
            Painted(str(len(one.workers)), "red" if one.waiting and not one.workers else ""),
            f"{span(found.now - one.last_used)} ago",
        ]
        for one in found.queues
    ]


def _worker_rows(found: Picture) -> list[list[Part]]:
    from dispatcher.cli.formatting import span
    from dispatcher.runs.routing import listed

    rows: list[list[Part]] = []
    for one in found.workers:
        labels = "every" if one.offer.every_label else listed(one.offer.labels) or "-"
        backends = ",".join(sorted(one.offer.backends)) + (f" @{one.offer.scope}" if one.offer.scope else "")
        rows.append([one.id, backends, labels, str(one.concurrency), one.python, span(found.now - one.started_at)])
    return rows
