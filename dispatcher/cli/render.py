"""``render``: what a worker would send for a run, without a server and without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli.common import Globals, common, option_json, pass_globals
from dispatcher.cli.options import options, run_options
from dispatcher.cli.terminal import echo_lines, print_json

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("target", metavar="TARGET")
@run_options
@click.option("--run-id", metavar="ID", help="Of which run; else of a new one.")
@click.option("--attempt", "number", type=click.IntRange(min=1), default=1, show_default=True, help="Which attempt.")
@click.option("--instance", default="instance", show_default=True, help="The installation's id (`dispatcher status`).")
@option_json
@common
@pass_globals
def render(
    known: Globals, /, target: str, run_id: str | None, number: int, instance: str, as_json: bool, **given: Any
) -> int:
    """Print exactly what would be sent for a run, with its digest, offline.

    TARGET and options are those of `run`, the settings those of the worker that would take it. Names, labels and so the
    digest are of one run: give the id of a real one, and its instance, to see what was sent for that.
    """
    from dispatcher import registry
    from dispatcher.cli.targets import load
    from dispatcher.errors import InvalidInput, Permanent
    from dispatcher.flows.flow import Flow
    from dispatcher.runner.settings import RunnerSettings
    from dispatcher.runs.options import Options
    from dispatcher.submission.request import RequestChecker, preview_attempt
    from dispatcher.support.ids import is_instance, is_run_id, new_id

    if run_id is not None and not is_run_id(run_id):
        raise InvalidInput(f"--run-id: must be a run's id, as `dispatcher list` shows it, got {run_id!r}")
    if not is_instance(instance):
        raise InvalidInput(
            f"--instance: must be an installation's id, as `dispatcher status` shows it, got {instance!r}"
        )
    flow = load(target, Flow, what="TARGET")
    settings = known.settings()
    keywords = options(given)
    keywords.pop("idempotency_key", None)
    environment, storage = keywords.pop("environment", None), keywords.pop("storage", None)
    asked = RequestChecker(settings).check(flow, environment, storage, Options.of(**keywords))
    backend = registry.backend(asked.environment.backend)
    if backend.in_process:
        kind = type(asked.environment).__name__
        raise InvalidInput(f"{kind} runs flows in the worker's own process, so nothing is sent: name an --environment")
    made = backend(settings)
    attempt = preview_attempt(
        asked,
        run_id or new_id(),
        number,
        instance=instance,
        place=made.place,
        variables=RunnerSettings.of(settings).variables(),
    )
    try:
        prepared = made.prepare(attempt)
    except Permanent as error:
        raise InvalidInput(str(error)) from error
    if as_json:
        print_json(prepared)
    else:
        echo_lines(made.rendered(prepared).rstrip())
    return 0
