"""``python -m benchmarks``: run the parts of the benchmark and print a table with a verdict per figure.

A full run also writes ``benchmarks/data/<date>.json``, the page ``docs/speed.md`` and its plots. Exit status 1 means
that a figure is out of its bound.
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
from benchmarks.results import BenchmarkResults, table


def main(arguments: list[str]) -> int:
    """Measure, print and save; return 1 if a figure is out of its bound."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers and servers end too
    all_parts = parts()
    options = _options([part.name for part in all_parts]).parse_args(arguments)
    console = Console()
    if options.page:
        page.write(BenchmarkResults.load(options.page))
        return 0
    chosen = [part for part in all_parts if not options.parts or _is_selected(part.name, options.parts)]
    results = measured(chosen, rounds=options.rounds or (2 if options.quick else 5), quick=options.quick, out=console)
    console.print(table(results))
    if options.json:
        results.save(options.json)
    if options.into:
        merged = BenchmarkResults.load(options.into) if options.into.exists() else results
        merged.merge(results)
        merged.sort_by_part([part.name for part in all_parts])
        merged.save(options.into)
    if not options.quick and not options.parts:  # a full run: its data belongs in the repository
        results.save(page.DATA / f"{results.at[:10]}.json")
        page.write(results)
    return 0 if all(row.passes for row in results.rows) else 1


def _is_selected(name: str, selections: list[str]) -> bool:
    """Return True if a part is selected by its name or its group: ``kubernetes`` selects all of that group."""
    return any(name == selection or name.startswith(f"{selection}-") for selection in selections)


def _options(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against bare Celery.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these parts or groups: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="rounds in which both sides take turns (5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of each count, 2 rounds: a trial, not to quote")
    parser.add_argument("--json", type=Path, help="also write every round to this file")
    parser.add_argument("--into", type=Path, metavar="JSON", help="merge these parts into the results of this file")
    parser.add_argument("--page", type=Path, metavar="JSON", help="measure nothing; write the page of these results")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
