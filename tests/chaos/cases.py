"""Cases of the failpoint matrix: the failpoints that each kind of run passes, and the cases that follow from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.worker_group import TIMING

BACKENDS = ("local", "remote", "fake")

#: Ways a run may go, cheapest first; a failpoint's cases use the first that passes it.
SCENARIOS = ("plain", "raises", "large", "dies", "vanishes", "cancelled", "unrung", "stubborn", "lost", "orphaned")

#: Those that make no difference on some backend. A container's node waits 5 s for a stubborn flow; only a container
#: vanishes without a report, and only its request is orphaned.
LEFT_OUT = {
    ("fake", "stubborn"),
    *((backend, way) for backend in ("local", "remote") for way in ("vanishes", "orphaned")),
}

KINDS = ("kill", "raise", "freeze", "reply_lost")

#: Longer than a lease and a look for ended ones.
FROZEN = TIMING["lease"] + 4 * TIMING["lease_tick"]


@dataclass(frozen=True)
class Passing:
    """A failpoint on the path of some scenarios; ``where`` is pool, worker or container."""

    name: str
    where: str
    backend: str
    scenarios: tuple[str, ...]


@dataclass
class Case:
    """One arm, the runs that it was laid for, and what was wrong afterwards. Without a backend, anybody fires it."""

    name: str
    kind: str
    arm: str
    backend: str
    scenarios: tuple[str, ...]
    runs: list[str] = field(default_factory=list)
    fired: bool = False
    harming: bool = False  #: it stops a worker
    wrong: list[str] = field(default_factory=list)

    @property
    def scenario(self) -> str:
        """For its next run: the cheapest at first, others where that came by the failpoint by chance alone."""
        return self.scenarios[len(self.runs) // 2 % len(self.scenarios)]


class Arms:
    """The folder of arms: see :mod:`dispatcher.support.failpoints`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fired").mkdir(parents=True)

    def lay(self, name: str, kind: str, run_id: str = "") -> None:
        """Lay an arm, so that nobody sees half of it."""
        draft = self.folder / ".draft"
        draft.write_text(kind)
        draft.rename(self.folder / (f"{name}+{run_id}" if run_id else name))

    def remove(self, name: str) -> None:
        """Take an arm away that nobody has fired."""
        (self.folder / name).unlink(missing_ok=True)

    def fired(self) -> dict[str, set[str]]:
        """By ``name`` or ``name+run``, the kinds that fired."""
        kinds: dict[str, set[str]] = {}
        for file in (self.folder / "fired").iterdir():
            kinds.setdefault(file.name.rpartition(".")[0], set()).add(file.read_text())
        return kinds

    def passed(self) -> list[dict[str, Any]]:
        """All passings so far."""
        file = self.folder / "passed.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def passings(
    lines: Iterable[Mapping[str, Any]],
    rehearsed: Mapping[str, tuple[str, str]],
    workers: Collection[int],
    *,
    scenarios: Sequence[str] = SCENARIOS,
) -> list[Passing]:
    """Return what a rehearsal passed: each failpoint, kind of process and backend, with its scenarios.

    Args:
        lines: as noted by the processes.
        rehearsed: backend and scenario of its runs.
        workers: pids of workers' parents.
        scenarios: all that there are, cheapest first.
    """
    passed: dict[tuple[str, str, str], set[str]] = {}
    ways = {**rehearsed, "": ("", scenarios[0])}
    for line in lines:
        if line["run"] not in ways:  # a provocation
            continue
        backend, scenario = ways[line["run"]]
        passed.setdefault((line["name"], _where(line, workers), backend), set()).add(scenario)
    return [Passing(*key, tuple(sorted(ways, key=scenarios.index))) for key, ways in sorted(passed.items())]


def _where(line: Mapping[str, Any], workers: Collection[int]) -> str:
    if line["pid"] in workers:
        return "worker"
    return "container" if "dispatcher.runner" in line["program"] else "pool"


def cases_of(passed: Iterable[Passing], *, long: bool, wanted: Callable[[str], bool] = lambda _: True) -> list[Case]:
    """The cases of what was passed. The remote backend shares the local one's path: one arm stands for it."""
    return [
        Case(passing.name, kind, arm, passing.backend, passing.scenarios, harming=_is_harming(kind, arm, passing.where))
        for passing in passed
        if wanted(passing.name)
        for kind in (KINDS if passing.backend != "remote" or long else KINDS[:1])
        for arm in arms_of(kind, passing.where)[: None if passing.backend != "remote" or long else 1]
    ]


def _is_harming(kind: str, arm: str, where: str) -> bool:
    return arm.startswith("worker") or (where == "worker" and kind in {"kill", "freeze"})


def arms_of(kind: str, where: str) -> tuple[str, ...]:
    """Return the arms of a kind of failure in a process; a pool process dies alone, or with its worker."""
    match kind, where:
        case "kill", "pool":
            return ("exit137", "worker137")
        case "kill", _:
            return ("exit137",)
        case "freeze", "pool":
            return (f"worker_freeze:{FROZEN:.2f}",)
        case "freeze", _:
            return (f"freeze:{FROZEN:.2f}",)
    return (kind,)
