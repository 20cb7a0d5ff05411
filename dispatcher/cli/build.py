"""``build``: make the image that a flow's storage describes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dispatcher.cli.common import common, option_json
from dispatcher.cli.terminal import echo, print_json


@click.command()
@click.argument("target", metavar="TARGET")
@click.option("--storage", metavar="FILE.json|MODULE:NAME", help="Build this one; else the flow's own.")
@click.option("--push/--no-push", default=True, help="Push to the storage's registry, if it names one.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the built storage here, as JSON."
)
@option_json
@common
def build(target: str, storage: str | None, push: bool, output: Path | None, as_json: bool) -> int:
    """Build the image of a flow, check that the flow loads in it, and push it.

    TARGET is module:flow or file.py:flow, its storage a DockerStorage. Nothing else builds or pushes: `run` and
    `submit` take what --output wrote with --storage.
    """
    from dispatcher.cli.options import storage as named
    from dispatcher.cli.targets import load
    from dispatcher.errors import InvalidInput
    from dispatcher.flows.flow import Flow
    from dispatcher.storage.docker.storage import DockerStorage

    flow = load(target, Flow, what="TARGET")
    kept = flow.storage if storage is None else named(storage, allow_sealed=True)  # nothing is signed here
    if not isinstance(kept, DockerStorage):
        raise InvalidInput(
            f"TARGET {target!r}: its storage is {kept!r}, which needs no build: give the flow one, "
            "@flow(storage=DockerStorage(…)), or name one with --storage"
        )
    kept.add_flow(flow)
    kept.build(push=push)
    if output is not None:
        output.write_text(json.dumps(kept.to_json(), indent=2) + "\n")
    if as_json:
        print_json(kept.to_json())
    else:
        echo(str(kept.image))
    return 0
