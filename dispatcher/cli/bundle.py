"""``bundle``: show the files of a flow's project that a submit would send, and those that it would leave out."""

from __future__ import annotations

from typing import Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.terminal import echo, print_json, print_table


@click.command()
@click.argument("target", metavar="TARGET", shell_complete=completions.targets)
@option_json
@common
@pass_global_options
def bundle(global_options: GlobalOptions, /, target: str, as_json: bool) -> int:
    """Show a flow's code bundle: each file, its size and why it is in, and what was left out.

    TARGET is module:flow (from the current directory) or file.py:flow. Nothing is sent. Change the bundle by
    @flow(include=[...], exclude=[...]), or by the same lists in [tool.dispatcher] of pyproject.toml.
    """
    from dispatcher.cli.targets import load
    from dispatcher.client.bundles import preview
    from dispatcher.flows.flow import Flow

    flow = load(target, Flow, argument="TARGET")
    made = preview(flow, global_options.settings())
    if as_json:
        print_json(_as_json(made))
        return 0
    if made is None:
        echo(f"flow {flow.name!r} needs no file of a project: all that it uses is installed, or travels by value")
        return 0
    selection = made.selection
    print_table(
        ("file", "bytes", "why"),
        [(file.path, f"{file.size:,}", file.reason) for file in selection.files],
    )
    if selection.left_out:
        echo("")
        print_table(("left out", "why"), [(left_out.path, left_out.reason) for left_out in selection.left_out])
    if selection.unmatched:
        echo("")
        print_table(
            ("pattern", "of", "why it does nothing"),
            [(f"{each.field} {each.pattern}", each.source, each.reason) for each in selection.unmatched],
        )
    size = sum(file.size for file in selection.files)
    echo("")
    echo(f"{len(selection.files):,} files, {size:,} bytes, packed {len(made.data):,}; digest {made.digest}")
    return 0


def _as_json(made: Any) -> dict[str, Any]:
    if made is None:
        return {"digest": None, "files": [], "left_out": [], "unmatched": []}
    return {
        "digest": made.digest,
        "bytes": len(made.data),
        "modules": sorted(made.selection.modules),
        "files": [{"path": file.path, "bytes": file.size, "why": file.reason} for file in made.selection.files],
        "left_out": [{"path": left_out.path, "why": left_out.reason} for left_out in made.selection.left_out],
        "unmatched": [
            {"of": each.source, "field": each.field, "pattern": each.pattern, "why": each.reason}
            for each in made.selection.unmatched
        ],
    }
