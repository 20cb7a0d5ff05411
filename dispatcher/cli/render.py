"""``render``: print the request that a worker would send for a run, without server and cluster."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.options import options, run_options
from dispatcher.cli.terminal import echo_lines, print_json
from dispatcher.support.escaping import shown


@click.command()
@click.argument("target", metavar="TARGET", shell_complete=completions.targets)
@run_options
@click.option("--run-id", metavar="ID", help="Run to render; default: a new one.")
@click.option(
    "--attempt", "number", type=click.IntRange(min=1), default=1, show_default=True, help="Attempt to render."
)
@click.option(
    "--instance", default="instance", show_default=True, help="The installation's id (see `dispatcher status`)."
)
@option_json
@common
@pass_global_options
def render(
    global_options: GlobalOptions,
    /,
    target: str,
    run_id: str | None,
    number: int,
    instance: str,
    as_json: bool,
    **values: Any,
) -> int:
    """Print the exact request that a worker would send for a run to its backend, such as Kubernetes, offline.

    TARGET and options are those of `run`; the settings are those of the worker that would take the run. Names, labels
    and therefore a digest belong to one run: give the id of an existing run, and its instance, to see its request.
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
        raise InvalidInput(f"--run-id: must be a run's id, as `dispatcher list` shows it, got {shown(run_id)}")
    if not is_instance(instance):
        raise InvalidInput(
            f"--instance: must be an installation's id, as `dispatcher status` shows it, got {shown(instance)}"
        )
    flow = load(target, Flow, argument="TARGET")
    settings = global_options.settings()
    keywords = options(values)
    keywords.pop("idempotency_key", None)
    environment, storage = keywords.pop("environment", None), keywords.pop("storage", None)
    request = RequestChecker(settings).check(flow, environment, storage, Options.of(**keywords))
    backend_class = registry.backend(request.environment.backend)
    if backend_class.in_process:
        kind = type(request.environment).__name__
        raise InvalidInput(
            f"{kind} runs flows in the worker's own process, so nothing is sent: name another --environment"
        )
    backend = backend_class(settings)
    attempt = preview_attempt(
        request,
        run_id or new_id(),
        number,
        instance=instance,
        place=backend.place,
        variables=RunnerSettings.of(settings).variables(),
    )
    try:
        prepared, objections = backend.preview(attempt)
    except Permanent as error:
        raise InvalidInput(str(error)) from error
    for objection in objections:
        echo_lines(f"warning: with these settings a worker refuses it: {objection}", err=True)
    for remark in backend.remarks(prepared):
        echo_lines(f"note: {remark}", err=True)
    if as_json:
        print_json(prepared)
    else:
        echo_lines(backend.rendered(prepared).rstrip())
    return 0
