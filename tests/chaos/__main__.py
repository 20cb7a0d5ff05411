"""``python -m tests.chaos``: every fault test in its long form, a verdict per row and figure, the page for the docs.

A full run writes ``tests/chaos/data/<date>.json``, ``docs/faults.md`` and its plots. ``--quick`` runs what CI runs, and
writes nothing unless told to (``--keep``). Exit status 1 says that something failed, or is out of its bound.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import description
from tests.chaos import page
from tests.chaos.distribution import shown
from tests.chaos.fault_rows import ROWS
from tests.chaos.figures import VARIABLE
from tests.chaos.results import Played, Results

_LONGEST = ("tests/chaos/test_failpoints.py", "tests/chaos/test_soak.py", "tests/chaos/test_recovery_times.py")

#: Parts in the order in which they are played, each with what pytest is given.
PARTS: Mapping[str, Sequence[str]] = {
    "model": ("tests/conformance/test_records_model.py",),
    "checker": ("tests/chaos/test_checker.py", "tests/chaos/test_history.py"),
    "rows": ("-m", "row and not kubernetes", *(f"--ignore={file}" for file in _LONGEST), "tests"),
    "kubernetes": ("-m", "row and kubernetes", "tests/cloud"),
    "matrix": ("tests/chaos/test_failpoints.py",),
    "recovery": ("tests/chaos/test_recovery_times.py",),
    "soak": ("tests/chaos/test_soak.py",),
}

#: Of these, what can be played again by itself, to be joined to what was kept.
APART: Mapping[str, Sequence[str]] = {"forgery": ("-m", "row and not kubernetes", "--row=34", "tests")}


def main(arguments: Sequence[str]) -> int:
    """Play, print, keep, and say whether all is well."""
    options = _options().parse_args(arguments)
    console = Console()
    if options.page:
        return _keep(options.page)
    parts = options.parts or list(PARTS)
    results = Results(at=_now(), machine=description())
    statuses = [_play(name, results, console, quick=options.quick) for name in parts]
    every = set(parts) == set(PARTS)
    for table in tables(results, rows=every or not {"rows", "kubernetes", *APART}.isdisjoint(parts)):
        console.print(table)
    for soak in results.soaks:
        console.print(f"soak: {soak['counts']['runs']} runs, {len(soak['violations'])} violations, seed {soak['seed']}")
    if options.json:
        results.save(options.json)
    if options.keep or (every and not options.quick):
        results.save(page.DATA / f"{results.at[:10]}.json")
        page.write(results)
        console.print(f"written: docs/{page.NAME}")
    well = not any(statuses) and results.passes(ROWS if every else ())
    for reason, rows in results.missing().items():
        console.print(f"[yellow]skipped, all or in part: rows {', '.join(map(str, rows))}: {reason}[/]")
    console.print("[green]all that was played is well[/]" if well else "[red]something is not well[/]")
    return 0 if well else 1


def _keep(files: Sequence[Path]) -> int:
    """Parts that were played one by one, kept as one."""
    results, *others = map(Results.load, files)
    for other in others:
        results.join(other)
    results.save(page.DATA / f"{results.at[:10]}.json")
    page.write(results)
    return 0


def _play(name: str, results: Results, console: Console, *, quick: bool) -> int:
    """One part, its output shown as it comes; pytest's exit status."""
    results.parts[name] = Played(at=_now(), long=not quick)
    console.rule(f"{name} ({[*PARTS, *APART].index(name) + 1} of {len(PARTS)})")
    with tempfile.TemporaryDirectory() as folder:
        outcomes_file = Path(folder, "told.jsonl")
        outcomes_file.touch()
        environ = {**os.environ, VARIABLE: str(outcomes_file), "CHAOS": "" if quick else "long"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-s",
            "-p",
            "tests.chaos.outcome_plugin",
            *{**PARTS, **APART}[name],
        ]
        status = subprocess.run(command, env=environ, cwd=page.ROOT, check=False).returncode
        results.take(outcomes_file.read_text().splitlines())
    if status < 0:
        console.print(f"[red]{name}: pytest itself was ended by signal {-status}[/]")
    return status


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def tables(results: Results, *, rows: bool) -> list[Table]:
    """A verdict per row, per figure, and per file of tests of no row."""
    tables = []
    if rows:
        tables.append(_table("rows of the fault matrix", "row", "fault", "tests", "verdict"))
        for row, fault in ROWS.items():
            names = "\n".join(test.name for test in results.of_row(row))
            tables[-1].add_row(str(row), fault, names, _coloured(results.verdict(row)))
    if results.figures:
        tables.append(_table("figures", "figure", "measured", "bound", "verdict"))
        for measured in results.figures:
            verdict = "pass" if measured.passes else "fail"
            tables[-1].add_row(
                measured.figure.name, shown(measured.samples), measured.figure.bound_text, _coloured(verdict)
            )
    if results.others:
        tables.append(_table("other tests", "tests", "how many", "seconds", "verdict"))
        for file, tests in results.by_file().items():
            failed = "\n".join(test.name for test in tests if test.outcome not in {"passed", "skipped"})
            seconds = f"{sum(test.seconds for test in tests):.0f}"
            verdict = _coloured("fail") + f"\n{failed}" if failed else _coloured("pass")
            tables[-1].add_row(file, str(len(tests)), seconds, verdict)
    return tables


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title)
    for head in heads:
        table.add_column(head)
    return table


def _coloured(verdict: str) -> str:
    colour = {"pass": "green", "skipped": "yellow"}.get(verdict, "red")
    return f"[{colour}]{verdict}[/]"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Play the fault tests.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        choices=[*PARTS, *APART, []],
        help=f"only these: {', '.join([*PARTS, *APART])}",
    )
    parser.add_argument("--quick", action="store_true", help="the bounded forms, as CI runs them")
    parser.add_argument("--keep", action="store_true", help="write the data and the page, whatever was played")
    parser.add_argument("--json", type=Path, help="also write the data to this file")
    parser.add_argument(
        "--page", type=Path, metavar="JSON", nargs="+", help="play nothing: keep these results as one, and their page"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
