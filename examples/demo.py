"""``make demo``: run every example on this machine with this repository's own text files, then stop what was started.

It uses its own laptop server, in a temporary directory, so that it touches no other runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dispatcher import Dispatcher, LocalEnvironment, RemoteEnvironment, Run, RunError, Settings, laptop
from examples.cancelled import keep_counting, log_final_state
from examples.dask_graph import vocabulary
from examples.failing import read_missing
from examples.fan_out import longest_line
from examples.retrying import third_time_lucky
from examples.word_count import word_count

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 180.0
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CRASHED", "TIMED_OUT", "CANCELLED"})
_COLOURS = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "red", "CRASHED": "red", "TIMED_OUT": "red"}


@dataclass(frozen=True)
class DemoRun:
    """A run of the demo: its title, and the state in which it should end."""

    title: str
    run: Run[Any]
    expected_state: str = "SUCCEEDED"


def main() -> int:
    """Run the demo; return 0 if every run ended as expected."""
    console = Console()
    os.chdir(ROOT)
    with temporary_server() as settings:
        with Dispatcher() as client:
            runs = submit_all(client)
            follow(runs, console)
            unexpected = [demo for demo in runs if demo.run.state != demo.expected_state]
            report(runs, console)
        stop(settings, console)
    for demo in unexpected:
        console.print(f"[red]{demo.title}: expected {demo.expected_state}; see its timeline and logs above[/]")
    if not unexpected:
        console.print("[green]every run ended as it should[/]")
    return 1 if unexpected else 0


@contextmanager
def temporary_server() -> Iterator[Settings]:
    """Yield the settings of a laptop server in a temporary directory, which is stopped at the end in any case."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER__")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="dispatcher-demo-") as directory:
        os.environ["DISPATCHER__STATE_DIR"] = directory
        settings = Settings.load()
        try:
            yield settings
        finally:
            laptop.down(settings, force=True)


def submit_all(client: Dispatcher) -> list[DemoRun]:
    """Submit every example."""
    paths = [str(path.relative_to(ROOT)) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])]
    local = LocalEnvironment()
    with_on_exit = LocalEnvironment(on_exit=log_final_state)
    cluster = {"n_workers": 2, "threads_per_worker": 1}
    dask = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"cluster_kwargs": cluster})
    mapped = client.map(longest_line, [{"path": path} for path in paths], environment=local)
    missing = {"path": "no-such-file.md"}
    return [
        DemoRun("word count", client.submit(word_count, {"paths": paths}, environment=local)),
        DemoRun("cancelled", client.submit(keep_counting, environment=with_on_exit), expected_state="CANCELLED"),
        DemoRun("Dask graph", client.submit(vocabulary, {"paths": paths}, environment=dask)),
        DemoRun("failing", client.submit(read_missing, missing, environment=local), expected_state="FAILED"),
        DemoRun("retrying", client.submit(third_time_lucky, environment=local)),
        *(DemoRun(f"map: {path}", run) for path, run in zip(paths, mapped, strict=True)),
    ]


def follow(runs: Sequence[DemoRun], console: Console) -> None:
    """Show the runs live until all have ended; cancel the one that never ends by itself once the others have."""
    begin = time.monotonic()
    cancelled = False
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            states = [str(demo.run.state) for demo in runs]
            live.update(table(runs, states, time.monotonic() - begin))
            open_runs = [demo for demo, state in zip(runs, states, strict=True) if state not in _ENDED]
            if not open_runs or time.monotonic() - begin > TIMEOUT:
                return
            if not cancelled and all(demo.expected_state == "CANCELLED" and _last_line(demo) for demo in open_runs):
                cancelled = True
                for demo in open_runs:
                    demo.run.cancel()
            time.sleep(0.15)


def table(runs: Sequence[DemoRun], states: Sequence[str], seconds: float) -> Table:
    """Return the table of the runs' present states."""
    ended = sum(state in _ENDED for state in states)
    rows = Table(title=f"{ended} of {len(runs)} runs ended, {seconds:.1f} s", title_justify="left")
    rows.add_column("run", no_wrap=True, min_width=7)
    rows.add_column("what it shows", no_wrap=True, overflow="ellipsis", max_width=32)
    rows.add_column("state", no_wrap=True, min_width=max(map(len, _ENDED)))
    rows.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
    for demo, state in zip(runs, states, strict=True):
        coloured = f"[{_COLOURS.get(state, 'yellow')}]{state}[/]"
        rows.add_row(f"…{demo.run.id[-6:]}", demo.title, coloured, _last_line(demo))
    return rows


def report(runs: Sequence[DemoRun], console: Console) -> None:
    """Print each run's timeline and its outcome."""
    for demo in runs:
        console.print(f"\n[bold]{demo.title}[/]")
        console.print(demo.run.timeline())
        console.print(outcome(demo.run), markup=False)


def outcome(run: Run[Any]) -> str:
    """Return a run's result, or its error and its last lines."""
    try:
        return f"result: {run.result(timeout=1)}"
    except RunError as error:
        tail = [f"  | {line.text}" for line in list(run.logs())[-3:]]
        return "\n".join([f"{type(error).__name__}: {error}", *tail])


def stop(settings: Settings, console: Console) -> None:
    """Stop the server and its worker."""
    laptop.down(settings, force=True)
    status = laptop.status(settings)
    if status.running or status.workers:
        raise RuntimeError(f"something still runs: {status}")
    console.print("stopped the worker and the embedded server")


def _last_line(demo: DemoRun) -> str:
    lines = list(demo.run.logs())
    return lines[-1].text if lines else ""


if __name__ == "__main__":
    sys.exit(main())
