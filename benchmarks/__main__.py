"""``python -m benchmarks``: both sides on one server, measured in turn; a table of ratios at the end.

Exit status 1 says that a figure is out of its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import bare, ours
from benchmarks.figures import Measured, Row, Sizes, rows, steps
from benchmarks.machine import described, server
from benchmarks.side import Side


def main(arguments: list[str]) -> int:
    """Measure, print, and say whether every figure is within its bound."""
    options = _options().parse_args(arguments)
    sizes = Sizes(completed=200, submitted=200, mapped=500, idle=20) if options.quick else Sizes()
    console = Console()
    console.print(described())
    mine, theirs = _measured(options.rounds, sizes, console)
    table = rows(mine, theirs)
    console.print(_table(table, options.rounds))
    if options.json:
        data = {"machine": described(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        rounds = {"flow-dispatcher": mine, "bare Celery": theirs}
        text = json.dumps({**data, "sizes": asdict(sizes), "rounds": rounds}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if all(row.passes for row in table) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against bare Celery.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of both sides in turn (5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of each count: to try it, not to quote it")
    parser.add_argument("--json", type=Path, help="also write every round to this file")
    return parser


def _measured(count: int, sizes: Sizes, console: Console) -> tuple[list[Measured], list[Measured]]:
    mine: list[Measured] = []
    theirs: list[Measured] = []
    with contextlib.ExitStack() as stack, console.status("starting the server and both workers") as status:
        socket = stack.enter_context(server())
        sides: list[tuple[Side, list[Measured]]] = [
            (stack.enter_context(bare.side(socket)), theirs),
            (stack.enter_context(ours.side(socket)), mine),
        ]
        for number in range(count):
            for _, measured in sides:
                measured.append({})
            for name, step in steps(sizes):
                # The sides take turns at going first, so that neither always finds the machine warmer.
                for side, measured in sides if number % 2 == 0 else reversed(sides):
                    status.update(f"round {number + 1} of {count}: {name}, {side.name}")
                    measured[-1] |= step(side)
    return mine, theirs


def _table(found: list[Row], count: int) -> Table:
    table = Table(title=f"flow-dispatcher against bare Celery, medians of {count} rounds")
    for name in ("figure", "ours", "Celery", "ratio", "rounds", "bound", ""):
        table.add_column(name, no_wrap=True, justify="left" if name in {"figure", ""} else "right")
    for row in found:
        sign = "≥" if row.figure.more_is_better else "≤"
        table.add_row(
            f"{row.figure.name}, {row.figure.unit}",
            f"{row.ours:,.1f}",
            f"{row.bare:,.1f}",
            f"{row.ratio:.2f}",
            f"{row.least:.2f}..{row.most:.2f}",
            f"{sign} {row.figure.bound:g}",
            "[green]pass[/]" if row.passes else "[red]fail[/]",
        )
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
