"""``worker``: be a worker, in the foreground."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli.common import Globals, common, pass_globals
from dispatcher.cli.options import DURATION


@click.command()
@click.option("--backend", "backends", multiple=True, help="Serve this backend; repeat it. Default: local, remote.")
@click.option("--label", "labels", multiple=True, help="Serve runs whose labels are among these; repeat it.")
@click.option("--concurrency", type=click.IntRange(min=1), help="How many in-process flows run at once.")
@click.option(
    "--runs-per-process", type=click.IntRange(min=1), help="Flows after which a process is replaced by a fresh one."
)
@click.option("--drain", type=DURATION, help="How long running flows get after SIGTERM (30).")
@click.option("--broker-url", metavar="URL", help="Redis or Valkey for doorbells, where that is another one.")
@common
@pass_globals
def worker(known: Globals, /, broker_url: str | None, **given: Any) -> int:
    """Run a worker in the foreground, until SIGTERM, SIGHUP or Ctrl-C.

    It takes runs whose labels are a non-empty subset of its own; without labels, runs without labels. Without a URL it
    serves the laptop server for this virtual environment. What isn't given comes from DISPATCHER__WORKER__… variables.
    """
    from dispatcher import laptop
    from dispatcher.laptop import spawn

    settings = known.settings(broker_url=broker_url)
    offered = _offered(given)
    if settings.url is not None or not settings.embedded:
        return spawn.run_worker(settings.but(worker=settings.worker.model_copy(update=offered)))
    with laptop.join(settings) as joined:
        offered.setdefault("every_label", not given["labels"])
        return spawn.run_worker(joined.settings.but(worker=joined.settings.worker.model_copy(update=offered)))


def _offered(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of the worker's settings, as far as they were given."""
    found = {name: given[name] for name in ("concurrency", "runs_per_process", "drain") if given[name] is not None}
    if given["backends"]:
        from dispatcher import registry

        for name in given["backends"]:
            registry.backend(name)  # names what is known, or the extra that is missing
        found["backends"] = frozenset(given["backends"])
    if given["labels"]:
        from dispatcher.runs.routing import check_labels

        found["labels"] = frozenset(check_labels(given["labels"], name="--label"))
    return found
