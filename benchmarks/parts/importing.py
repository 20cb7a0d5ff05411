"""The cost of a program's first submit: the import, and the memory of a process that only submits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import ours
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import server

FIGURES = (
    Figure(
        name="import dispatcher",
        unit="ms",
        bound=150,
        by=Comparison.DIFFERENCE,
        base="an interpreter that imports nothing",
    ),
    Figure(name="memory of a process that submits", unit="MB RSS", bound=60, by=Comparison.OURS),
    Figure(name="first submit of a fresh process", unit="ms", by=Comparison.OURS, base=""),
)

#: Prints its resident memory in megabytes and the milliseconds of import and first submit.
_SUBMITTER = """
import time
begin = time.perf_counter()
from dispatcher import Dispatcher, LocalEnvironment, flow

@flow
def noop() -> None: ...

with Dispatcher() as client:
    client.submit(noop, environment=LocalEnvironment(labels=["nobody"]))
    took = time.perf_counter() - begin
    for n in range(100):
        client.submit(noop, environment=LocalEnvironment(labels=["nobody"]))
    with open("/proc/self/status") as status:
        resident = next(line.split()[1] for line in status if line.startswith("VmRSS"))
print(int(resident) / 1024, took * 1000)
"""

#: The same with bare Celery, only for comparison.
_BARE = """
import sys, time
begin = time.perf_counter()
from benchmarks.bare import application
noop = application(sys.argv[1]).tasks["bare.noop"]
noop.apply_async(queue="nobody")
took = time.perf_counter() - begin
for n in range(100):
    noop.apply_async(queue="nobody")
with open("/proc/self/status") as status:
    resident = next(line.split()[1] for line in status if line.startswith("VmRSS"))
print(int(resident) / 1024, took * 1000)
"""


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start a server without a worker; each value is measured in a fresh interpreter."""
    with server() as socket:

        def measure(number: int) -> Measured:
            times = turns(
                number, {"ours": partial(_milliseconds, "import dispatcher"), "base": partial(_milliseconds, "pass")}
            )
            mine = _output(_SUBMITTER, socket)
            theirs = _output(_BARE, socket)
            return {
                "import dispatcher": Pair(**times),
                "memory of a process that submits": Pair(mine[0], theirs[0]),
                "first submit of a fresh process": Pair(mine[1], theirs[1]),
            }

        yield measure


def _milliseconds(statement: str) -> float:
    """Return the median duration of an interpreter that executes ``statement`` and exits."""
    return median(_once(statement) for _ in range(7)) * 1000


def _once(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, cwd="/")
    return time.perf_counter() - begin


def _output(program: str, socket: Path) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-c", program, str(socket)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, env=ours.variables(socket), cwd=root, check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    return [float(word) for word in done.stdout.split()]


PART = Part(name="importing", figures=FIGURES, opened=opened)
