"""The time in which a pool process, after each run, compares its state with that before the first one, and restores
it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Comparison, Figure, Measured, Pair

FIGURES = (
    Figure(name="process compared after a run", unit="µs", by=Comparison.OURS, base="", digits=0),
    Figure(name="process put back after a run that changed much", unit="µs", by=Comparison.OURS, base="", digits=0),
)

#: Prints the medians of both in microseconds, in an interpreter with the modules of a pool process.
_PROGRAM = """
import decimal, logging, os, signal, socket, sys, time, warnings
from statistics import median
import celery.app.trace, celery.worker, kombu.transport.redis
import backends.local, dispatcher.executors, dispatcher.records.redis, dispatcher.runner.in_process, workers.engine
from dispatcher.runner.process_state.baseline import Baseline

def change():
    os.environ["STRANGE"] = "left"
    os.chdir("/tmp")
    os.umask(0o77)
    signal.signal(signal.SIGUSR2, print)
    sys.path.insert(0, "/strange")
    sys.setrecursionlimit(5000)
    socket.setdefaulttimeout(3)
    warnings.simplefilter("error")
    logging.disable(logging.ERROR)
    logging.getLogger("strange").addHandler(logging.NullHandler())

def took():
    begin = time.perf_counter()
    assert baseline.restore() == []
    return (time.perf_counter() - begin) * 1e6

baseline = Baseline()
took()
compared = [took() for _ in range(2000)]
put_back = [took() for _ in range(500) if change() is None]
print(median(compared), median(put_back))
"""


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Yield the measurement, which starts a fresh interpreter; no server is needed."""

    def measure(number: int) -> Measured:
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], cwd=root, check=True, stdout=subprocess.PIPE, text=True, timeout=120
        )
        values = map(float, done.stdout.split())
        return {figure.name: Pair(value) for figure, value in zip(FIGURES, values, strict=True)}

    yield measure


PART = Part(name="tidying", figures=FIGURES, opened=opened)
