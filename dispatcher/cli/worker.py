"""``worker``: run a worker in the foreground."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, pass_global_options
from dispatcher.cli.options import DURATION


@click.command()
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=completions.backends,
    help="Backend to serve; repeatable. Default: local, remote.",
)
@click.option("--label", "labels", multiple=True, help="Label to serve; repeatable.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Most in-process flows that run at the same time.")
@click.option(
    "--runs-per-process", type=click.IntRange(min=1), help="Flows after which a process is replaced by a new one."
)
@click.option("--drain", type=DURATION, help="Time for running flows to end after SIGTERM (30).")
@click.option("--broker-url", metavar="URL", help="Redis or Valkey server for doorbells, if it is another one.")
@common
@pass_global_options
def worker(global_options: GlobalOptions, /, broker_url: str | None, **values: Any) -> int:
    """Run a worker in the foreground, until SIGTERM, SIGHUP or Ctrl-C.

    It takes runs whose labels are a non-empty subset of its own; without labels, it takes runs without labels. Without
    a URL, it serves the laptop server for this virtual environment. Options default to the DISPATCHER__WORKER__…
    variables.
    """
    from dispatcher import laptop
    from dispatcher.laptop import spawn

    settings = global_options.settings(broker_url=broker_url)
    offer = _offer(values)
    if settings.url is not None or not settings.embedded:
        return spawn.run_worker(settings.but(worker=settings.worker.model_copy(update=offer)))
    with laptop.join(settings) as joined:
        offer.setdefault("every_label", not values["labels"])
        return spawn.run_worker(joined.settings.but(worker=joined.settings.worker.model_copy(update=offer)))


def _offer(values: dict[str, Any]) -> dict[str, Any]:
    """Return the worker settings that the options set."""
    offer = {name: values[name] for name in ("concurrency", "runs_per_process", "drain") if values[name] is not None}
    if values["backends"]:
        from dispatcher import registry

        for name in values["backends"]:
            registry.backend(name)  # raises for an unknown name or a missing extra
        offer["backends"] = frozenset(values["backends"])
    if values["labels"]:
        from dispatcher.runs.routing import check_labels

        offer["labels"] = frozenset(check_labels(values["labels"], name="--label"))
    return offer
