"""``gc``: find and delete orphaned infrastructure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.options import DURATION
from dispatcher.cli.terminal import echo, print_json, print_table
from dispatcher.support.durations import format_duration

if TYPE_CHECKING:
    from dispatcher.inspection.orphans import Orphan
    from dispatcher.inspection.static import UnusedObject

_COLUMNS = ("backend", "name", "run", "attempt")


@click.command()
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=completions.backends,
    help="Backend to search; repeatable. Default: all usable here.",
)
@click.option("--older", type=DURATION, default=60.0, show_default="60 s", help="Minimum age.")
@click.option("--yes", is_flag=True, help="Delete it; default: only show it.")
@option_json
@common
@pass_global_options
def gc(global_options: GlobalOptions, backends: Sequence[str], older: float, yes: bool, as_json: bool) -> int:
    """Show orphaned infrastructure of this installation; delete it with --yes.

    Orphaned means that no run needs it. Workers delete that of single runs by themselves; use this command where none
    runs, and for what workers set up for many runs, such as the Secret of an image registry: it is shown if no open run
    needs it and none has used it for ten minutes. What workers have deleted and somebody keeps, such as by a finalizer,
    is shown with the reason. The command needs the backend's extra and settings. Exits 1 if something isn't confirmed
    gone.
    """
    from dispatcher.inspection.orphans import OrphanCleanup
    from dispatcher.inspection.static import StaticCleanup

    with global_options.client() as client:
        sweep = OrphanCleanup(client.session.records, global_options.settings(), backends)
        try:
            static = StaticCleanup(client.session.records, sweep.backends)
            orphans, objects = sweep.orphans(older=older), static.unused(older=older)
            ends = ["would be ended"] * (len(orphans) + len(objects))
            if yes:
                ends = [*sweep.end(orphans, older=older), *static.end(objects)]
        finally:
            sweep.close()
    rows = [*map(_of_orphan, orphans), *map(_of_object, objects)]
    for row, end in zip(rows, ends, strict=True):
        row["end"] = end
    if static.skipped:
        echo(static.skipped, err=True)
    if as_json:
        print_json(rows)
    else:
        _show(rows, sweep.skipped, yes)
    return 1 if yes and any(row["end"] != "gone" for row in rows) else 0


def _of_orphan(orphan: Orphan) -> dict[str, Any]:
    return {
        "backend": orphan.backend,
        "name": orphan.name,
        "run": orphan.infrastructure.run_id,
        "attempt": orphan.infrastructure.attempt,
        "age": round(orphan.infrastructure.age, 1),
        "why": orphan.why,
    }


def _of_object(unused: UnusedObject) -> dict[str, Any]:
    """Return the row of an object that belongs to no single run."""
    return {
        "backend": unused.thing.backend,
        "name": unused.thing.name,
        "run": None,
        "attempt": None,
        "age": round(unused.age, 1),
        "why": unused.why,
    }


def _show(rows: Sequence[dict[str, Any]], skipped: dict[str, str], yes: bool) -> None:
    for name, why in skipped.items():
        echo(f"backend {name} was skipped: {why}", err=True)
    if not rows:
        echo("no orphaned infrastructure", err=True)
        return
    print_table(
        ["BACKEND", "NAME", "RUN", "ATTEMPT", "AGE", "WHY", "END"],
        [
            [*(str(row[name] or "-") for name in _COLUMNS), format_duration(row["age"]), row["why"], row["end"]]
            for row in rows
        ],
    )
    if not yes:
        echo("nothing was deleted; --yes deletes it", err=True)
