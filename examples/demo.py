"""``make demo``: runs every example on this machine and on this repository's own text files, then stops all it started.

It has a laptop server of its own, in a temporary directory, so it touches nobody else's runs.
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
from examples.cancelled import keep_counting, said_goodbye
from examples.dask_graph import vocabulary
from examples.failing import read_missing
from examples.fan_out import longest_line
from examples.retrying import third_time_lucky
from examples.word_count import word_count

ROOT = Path(__file__).resolve().parent.parent
WITHIN = 180.0
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CRASHED", "TIMED_OUT", "CANCELLED"})
_COLOURS = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "red", "CRASHED": "red", "TIMED_OUT": "red"}


@dataclass(frozen=True)
class Shown:
    """A run of the demo: what it shows, and the state in which it should end."""

    what: str
    run: Run[Any]
    ends: str = "SUCCEEDED"


def main() -> int:
    """Run the demo; 0 if every run ended as it should."""
    console = Console()
    os.chdir(ROOT)
    with own_server() as settings:
        with Dispatcher() as client:
            runs = submitted(client)
            followed(runs, console)
            wrong = [one for one in runs if one.run.state != one.ends]
            reported(runs, console)
        stopped(settings, console)
    for one in wrong:
        console.print(f"[red]{one.what}: expected {one.ends}; see its timeline and logs above[/]")
    if not wrong:
        console.print("[green]every run ended as it should[/]")
    return 1 if wrong else 0


@contextmanager
def own_server() -> Iterator[Settings]:
    """Settings of a laptop server in a temporary directory; stopped at the end, whatever happened."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER__")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="dispatcher-demo-") as directory:
        os.environ["DISPATCHER__STATE_DIR"] = directory
        settings = Settings.load()
        try:
            yield settings
        finally:
            laptop.down(settings, force=True)


def submitted(client: Dispatcher) -> list[Shown]:
    """Every example, submitted."""
    paths = [str(path.relative_to(ROOT)) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])]
    here = LocalEnvironment()
    says_goodbye = LocalEnvironment(on_exit=said_goodbye)
    cluster = {"n_workers": 2, "threads_per_worker": 1}
    dask = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"cluster_kwargs": cluster})
    each = client.map(longest_line, [{"path": path} for path in paths], environment=here)
    return [
        Shown("word count", client.submit(word_count, {"paths": paths}, environment=here)),
        Shown("cancelled", client.submit(keep_counting, environment=says_goodbye), ends="CANCELLED"),
        Shown("Dask graph", client.submit(vocabulary, {"paths": paths}, environment=dask)),
        Shown("failing", client.submit(read_missing, {"path": "no-such-file.md"}, environment=here), ends="FAILED"),
        Shown("retrying", client.submit(third_time_lucky, environment=here)),
        *(Shown(f"map: {path}", run) for path, run in zip(paths, each, strict=True)),
    ]


def followed(runs: Sequence[Shown], console: Console) -> None:
    """Show the runs live until all have ended; cancel the one that never ends by itself once the others have."""
    begin = time.monotonic()
    asked = False
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            states = [str(one.run.state) for one in runs]
            live.update(table(runs, states, time.monotonic() - begin))
            open_runs = [one for one, state in zip(runs, states, strict=True) if state not in _ENDED]
            if not open_runs or time.monotonic() - begin > WITHIN:
                return
            if not asked and all(one.ends == "CANCELLED" and _speaks(one) for one in open_runs):
                asked = True
                for one in open_runs:
                    one.run.cancel()
            time.sleep(0.15)


def table(runs: Sequence[Shown], states: Sequence[str], seconds: float) -> Table:
    """The runs as they stand."""
    ended = sum(state in _ENDED for state in states)
    made = Table(title=f"{ended} of {len(runs)} runs ended, {seconds:.1f} s", title_justify="left")
    made.add_column("run", no_wrap=True, min_width=7)
    made.add_column("what it shows", no_wrap=True, overflow="ellipsis", max_width=32)
    made.add_column("state", no_wrap=True, min_width=max(map(len, _ENDED)))
    made.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
    for one, state in zip(runs, states, strict=True):
        made.add_row(f"…{one.run.id[-6:]}", one.what, f"[{_COLOURS.get(state, 'yellow')}]{state}[/]", _last_line(one))
    return made


def reported(runs: Sequence[Shown], console: Console) -> None:
    """Each run's timeline, and what came back."""
    for one in runs:
        console.print(f"\n[bold]{one.what}[/]")
        console.print(one.run.timeline())
        console.print(outcome(one.run), markup=False)


def outcome(run: Run[Any]) -> str:
    """A run's result, or its error and its last lines."""
    try:
        return f"result: {run.result(timeout=1)}"
    except RunError as error:
        tail = [f"  | {line.text}" for line in list(run.logs())[-3:]]
        return "\n".join([f"{type(error).__name__}: {error}", *tail])


def stopped(settings: Settings, console: Console) -> None:
    """Stop the server and its worker now, and say so."""
    laptop.down(settings, force=True)
    left = laptop.status(settings)
    if left.running or left.workers:
        raise RuntimeError(f"something still runs: {left}")
    console.print("stopped the worker and the embedded server")


def _speaks(one: Shown) -> bool:
    return _last_line(one) != ""


def _last_line(one: Shown) -> str:
    lines = list(one.run.logs())
    return lines[-1].text if lines else ""


if __name__ == "__main__":
    sys.exit(main())
