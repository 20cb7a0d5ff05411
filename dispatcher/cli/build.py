"""``build``: build the image that a flow's storage describes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dispatcher.cli import completions
from dispatcher.cli.common import common, option_json
from dispatcher.cli.terminal import echo, print_json


@click.command()
@click.argument("target", metavar="TARGET", shell_complete=completions.targets)
@click.option("--storage", metavar="FILE.json|MODULE:NAME", help="The storage to build; default: the flow's own.")
@click.option("--push/--no-push", default=True, help="Push to the storage's registry, if it names one.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write the built storage to, as JSON."
)
@option_json
@common
def build(target: str, storage: str | None, push: bool, output: Path | None, as_json: bool) -> int:
    """Build the image of a flow, check that the flow loads in it, and push it.

    TARGET is module:flow or file.py:flow, and its storage a DockerStorage. No other command builds or pushes: pass the
    file that --output wrote to `run` and `submit`, with --storage.
    """
    from dispatcher.cli.options import storage as load_storage
    from dispatcher.cli.targets import load
    from dispatcher.errors import InvalidInput
    from dispatcher.flows.flow import Flow
    from dispatcher.storage.docker.storage import DockerStorage

    flow = load(target, Flow, argument="TARGET")
    target_storage = flow.storage if storage is None else load_storage(storage, allow_sealed=True)  # signs nothing
    if not isinstance(target_storage, DockerStorage):
        raise InvalidInput(
            f"TARGET {target!r}: its storage is {target_storage!r}, which needs no build: give the flow one, "
            "@flow(storage=DockerStorage(…)), or name one with --storage"
        )
    target_storage.add_flow(flow)
    target_storage.build(push=push)
    if output is not None:
        output.write_text(json.dumps(target_storage.to_json(), indent=2) + "\n")
    if as_json:
        print_json(target_storage.to_json())
    else:
        echo(str(target_storage.image))
    return 0
