"""``gc``: infrastructure that no run wants any more."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dispatcher.cli.common import Globals, common, option_json, pass_globals
from dispatcher.cli.options import DURATION
from dispatcher.cli.terminal import echo, print_json, print_table


@click.command()
@click.option("--backend", "backends", multiple=True, help="Of this backend; repeat it. Default: all usable here.")
@click.option("--older", type=DURATION, default=60.0, show_default="60 s", help="Only what is older.")
@click.option("--yes", is_flag=True, help="End it; else it is only shown.")
@option_json
@common
@pass_globals
def gc(known: Globals, backends: Sequence[str], older: float, yes: bool, as_json: bool) -> int:
    """Show infrastructure of this installation that no run wants any more, and end it with --yes.

    Workers do so by themselves; this is for where none runs. It takes the backend's extra and its settings. Exits 1
    if something that was to be ended isn't confirmed gone.
    """
    from dispatcher.inspection.orphans import Sweep

    with known.client() as client:
        sweep = Sweep(client.session.records, known.settings(), backends)
        try:
            orphans = sweep.orphans(older=older)
            ends = list(sweep.end(orphans, older=older)) if yes else ["would be ended"] * len(orphans)
        finally:
            sweep.close()
    rows = [
        {"backend": one.backend, "name": one.name, "run": one.found.run_id, "attempt": one.found.attempt,
         "age": round(one.found.age, 1), "why": one.why, "end": end}
        for one, end in zip(orphans, ends, strict=True)
    ]  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        _show(rows, sweep.skipped, yes)
    return 1 if yes and any(row["end"] != "gone" for row in rows) else 0


def _show(rows: Sequence[dict[str, object]], skipped: dict[str, str], yes: bool) -> None:
    for name, why in skipped.items():
        echo(f"backend {name} wasn't asked: {why}", err=True)
    if not rows:
        echo("nothing to end", err=True)
        return
    heads = ["BACKEND", "NAME", "RUN", "ATTEMPT", "AGE", "WHY", "END"]
    from dispatcher.cli.formatting import span

    print_table(heads, [[str(row["backend"]), str(row["name"]), str(row["run"]), str(row["attempt"]),
                         span(float(str(row["age"]))), str(row["why"]), str(row["end"])] for row in rows])  # fmt: skip
    if not yes:
        echo("nothing was ended: say --yes to do so", err=True)
