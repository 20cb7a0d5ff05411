"""``python -m benchmarks``: every part of the benchmark, a table with a verdict per figure, and the data for the docs.

A full run writes ``benchmarks/data/<date>.json``, the page ``docs/speed.md`` and its plots. Exit status 1 says that a
figure is out of its bound.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import page
from benchmarks.measuring import measured
from benchmarks.parts import parts
from benchmarks.results import Results, table


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and say whether every figure is within its bound."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers and servers end too
    known = parts()
    options = _options([part.name for part in known]).parse_args(arguments)
    console = Console()
    if options.page:
        page.write(Results.load(options.page))
        return 0
    chosen = [part for part in known if not options.parts or _named(part.name, options.parts)]
    results = measured(chosen, rounds=options.rounds or (2 if options.quick else 5), quick=options.quick, out=console)
    console.print(table(results))
    if options.json:
        results.save(options.json)
    if options.into:
        kept = Results.load(options.into) if options.into.exists() else results
        kept.merge(results)
        kept.in_order([part.name for part in known])
        kept.save(options.into)
    if not options.quick and not options.parts:  # all of it, in full: the repository keeps it
        results.save(page.DATA / f"{results.at[:10]}.json")
        page.write(results)
    return 0 if all(row.passes for row in results.rows) else 1


def _named(name: str, asked: list[str]) -> bool:
    """Return True if a part is asked for, by its name or by what it begins with: ``kubernetes`` are all of those."""
    return any(name == one or name.startswith(f"{one}-") for one in asked)


def _options(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against bare Celery.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these, or all of a group: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="rounds of both sides in turn (5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of each count, 2 rounds: to try it, not to quote")
    parser.add_argument("--json", type=Path, help="also write every round to this file")
    parser.add_argument("--into", type=Path, metavar="JSON", help="put these parts into the results of this file")
    parser.add_argument("--page", type=Path, metavar="JSON", help="measure nothing: write the page of these results")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
