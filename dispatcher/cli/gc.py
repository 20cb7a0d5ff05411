"""``gc``: find and delete orphaned infrastructure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.options import DURATION
from dispatcher.cli.terminal import echo, print_json, print_table
from dispatcher.support.durations import format_duration

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

    Orphaned means that no run needs it. Workers delete it by themselves; use this command where none runs. What they
    have deleted and somebody keeps, such as by a finalizer, is shown with the reason. The command needs the backend's
    extra and settings. Exits 1 if something isn't confirmed gone.
    """
    from dispatcher.inspection.orphans import OrphanCleanup

    with global_options.client() as client:
        sweep = OrphanCleanup(client.session.records, global_options.settings(), backends)
        try:
            orphans = sweep.orphans(older=older)
            ends = list(sweep.end(orphans, older=older)) if yes else ["would be ended"] * len(orphans)
        finally:
            sweep.close()
    rows = [
        {
            "backend": orphan.backend,
            "name": orphan.name,
            "run": orphan.infrastructure.run_id,
            "attempt": orphan.infrastructure.attempt,
            "age": round(orphan.infrastructure.age, 1),
            "why": orphan.why,
            "end": end,
        }
        for orphan, end in zip(orphans, ends, strict=True)
    ]
    if as_json:
        print_json(rows)
    else:
        _show(rows, sweep.skipped, yes)
    return 1 if yes and any(row["end"] != "gone" for row in rows) else 0


def _show(rows: Sequence[dict[str, Any]], skipped: dict[str, str], yes: bool) -> None:
    for name, why in skipped.items():
        echo(f"backend {name} was skipped: {why}", err=True)
    if not rows:
        echo("no orphaned infrastructure", err=True)
        return
    print_table(
        ["BACKEND", "NAME", "RUN", "ATTEMPT", "AGE", "WHY", "END"],
        [[*(str(row[name]) for name in _COLUMNS), format_duration(row["age"]), row["why"], row["end"]] for row in rows],
    )
    if not yes:
        echo("nothing was deleted; --yes deletes it", err=True)
