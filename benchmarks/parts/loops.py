"""Loop against loop: submits with a parameter one after the other, and their results. What most programs do.

Measured on several servers, each with and without its data on disk.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import processor_time, redis, server
from benchmarks.side import LoopRates, Side, Take, both

_RUNS = 2000
_PROCESSES = ("worker", "server", "client")


@dataclass(frozen=True)
class _Loop:
    """The loops of one side: their rates by the way of taking results, and what the first of them cost.

    Attributes:
        rates: by way; of the empty loop under None.
        costs: milliseconds of processor time per run, by process.
        cores: processors that each process kept busy.
    """

    rates: dict[Take | None, LoopRates]
    costs: dict[str, float]
    cores: dict[str, float]


def _part(name: str, suffix: str, program: str | None, *, durable: bool) -> Part:
    """Return the part for one server, whose figures' names end with ``suffix``."""

    def figure(name: str, unit: str = "runs/s", bound: float | None = None, **more: object) -> Figure:
        more_is_better = unit == "runs/s"
        digits = 0 if more_is_better else 2
        options = {"more_is_better": more_is_better, "digits": digits, **more}
        return Figure(name=f"loop: {name}{suffix}", unit=unit, bound=bound, **options)  # type: ignore[arg-type]

    figures = (
        figure("completed", bound=1.2),
        figure("submit, beside a busy worker", bound=1.3),
        figure("completed, results by wait"),
        figure("completed, results as completed"),
        figure("completed, without parameter and result"),
        figure("results one by one, beside by wait", "ms", 1.05, base="results by wait"),
        *(
            figure(f"processor time of the {process} per run", "ms", 1.2 if process == "server" else None)
            for process in _PROCESSES
        ),
        *(figure(f"cores used by the {process}", "cores") for process in _PROCESSES),
    )

    @contextmanager
    def opened(bench: Benchmark) -> Iterator[Measure]:
        with server(program, durable=durable) as socket, both(socket) as (mine, theirs):
            with redis(socket) as connection:
                server_pid = int(connection.info("server")["process_id"])

            def measure(number: int) -> Measured:
                bench.say(f"loops{suffix}")
                loops: dict[str, _Loop] = {}

                def run(side: Side) -> float:
                    loops[side.name] = _looped(side, server_pid, bench.count(_RUNS))
                    return 0.0

                turns(number, {"ours": partial(run, mine), "base": partial(run, theirs)})
                return dict(
                    zip((figure.name for figure in figures), _pairs(loops[mine.name], loops[theirs.name]), strict=True)
                )

            yield measure

    def lacks() -> str:
        return "" if program is None or shutil.which(program) else f"there is no {program}"

    return Part(name=name, figures=figures, opened=opened, lacks=lacks)


def _looped(side: Side, server_pid: int, count: int) -> _Loop:
    before, begin = _spent(side, server_pid), time.perf_counter()
    rates: dict[Take | None, LoopRates] = {Take.ONE_BY_ONE: side.looped(count, Take.ONE_BY_ONE)}
    after, seconds = _spent(side, server_pid), time.perf_counter() - begin
    spent = {process: after[process] - before[process] for process in _PROCESSES}
    rates |= {take: side.looped(count, take) for take in (Take.BY_WAIT, Take.AS_COMPLETED)}
    rates[None] = side.looped(count, Take.ONE_BY_ONE, empty=True)
    return _Loop(
        rates,
        {process: spent[process] / count * 1000 for process in _PROCESSES},
        {process: spent[process] / seconds for process in _PROCESSES},
    )


def _spent(side: Side, server_pid: int) -> dict[str, float]:
    return {
        "worker": processor_time(side.pid),
        "server": processor_time(server_pid),
        "client": sum(os.times()[:2]),
    }


def _pairs(ours: _Loop, base: _Loop) -> Iterator[Pair]:
    """The values of the figures, in their order."""
    one_by_one, by_wait = ours.rates[Take.ONE_BY_ONE], ours.rates[Take.BY_WAIT]
    yield Pair(one_by_one.completed, base.rates[Take.ONE_BY_ONE].completed)
    yield Pair(one_by_one.submitted, base.rates[Take.ONE_BY_ONE].submitted)
    for take in (Take.BY_WAIT, Take.AS_COMPLETED, None):
        yield Pair(ours.rates[take].completed, base.rates[take].completed)
    yield Pair(1000 / one_by_one.completed, 1000 / by_wait.completed)
    for process in _PROCESSES:
        yield Pair(ours.costs[process], base.costs[process])
    for process in _PROCESSES:
        yield Pair(ours.cores[process], base.cores[process])


PARTS = (
    _part("loop", "", None, durable=True),
    _part("loop-in-memory", ", without AOF", None, durable=False),
    _part("loop-redis", ", redis-server", "redis-server", durable=True),
    _part("loop-redis-in-memory", ", redis-server without AOF", "redis-server", durable=False),
)
