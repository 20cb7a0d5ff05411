"""Up to 8 submitting clients and 4 workers: the cost of a run as their number grows.

The rate grows with their number until the cores are busy. From there on it must not fall, and the processor time per
run shows the cost of context switches. The operating system contributes to that, so bare Celery is measured beside
ours. Stack samples of two clients and two workers, taken apart from the measurement, show which layers use the
processor.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import bare, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Figure, Measured, Pair
from benchmarks.machine import child, processor_time, redis, server, until
from benchmarks.sampling import missing, sampling

FIGURES = (
    Figure(name="8 clients: submits", unit="runs/s", bound=1.0, more_is_better=True, base="1 client", digits=0),
    Figure(name="4 workers: completed", unit="runs/s", bound=1.0, more_is_better=True, base="1 worker", digits=0),
    Figure(name="8 clients: processor time per submit", unit="ms", base="1 client", digits=3),
    Figure(name="8 clients of bare Celery: processor time per submit", unit="ms", base="1 client of it", digits=3),
    Figure(name="8 clients: growth of that time, beside bare Celery's", unit="times", bound=1.1, digits=2),
    Figure(name="4 workers: processor time per run", unit="ms", base="1 worker", digits=3),
    Figure(name="4 workers of bare Celery: processor time per task", unit="ms", base="1 worker of it", digits=3),
    Figure(name="4 workers: growth of that time, beside bare Celery's", unit="times", bound=1.1, digits=2),
)

#: Connects, prints "ready", waits for a line, submits a number of runs, and prints the processor time used.
_SUBMITTER = """
import os, sys
from benchmarks.ours import HERE, noop
from dispatcher import Dispatcher
with Dispatcher() as client:
    client.submit(noop, environment=HERE)
    print("ready", flush=True)
    sys.stdin.readline()
    before = sum(os.times()[:2])
    for _ in range(int(sys.argv[1])):
        client.submit(noop, environment=HERE)
    print(sum(os.times()[:2]) - before, flush=True)
"""

#: The same for bare Celery.
_BARE = """
import os, sys
from benchmarks import bare
noop = bare.application(sys.argv[2]).tasks["bare.noop"]
results = [noop.apply_async()]
print("ready", flush=True)
sys.stdin.readline()
before = sum(os.times()[:2])
for _ in range(int(sys.argv[1])):
    results.append(noop.apply_async())
print(sum(os.times()[:2]) - before, flush=True)
os._exit(0)  # skips the finalisers of thousands of results
"""

_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Yield the measurement, which starts its own servers and processes."""

    def measure(number: int) -> Measured:
        submits, completed, bare_submits, bare_completed = {}, {}, {}, {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for count in (1, 2, 4, 8):
                bench.say(f"{count} clients")
                submits[count] = _submits(count, bench.count(2400), bench)
            for count in (1, 8):
                bench.say(f"{count} clients of bare Celery")
                bare_submits[count] = _submits(count, bench.count(2400), bench, program=_BARE)
            for count in (1, 2, 4):
                bench.say(f"{count} workers")
                completed[count] = _completed(count, bench.count(4000), bench)
            for count in (1, 4):
                bench.say(f"{count} workers of bare Celery")
                bare_completed[count] = _bare_completed(count, bench.count(2000 * (1 + count)), bench)
            if number == 0 and not missing():
                bench.say("samples")
                _submits(8, bench.count(4800), bench, sampled=True)
                _completed(4, bench.count(4000), bench, sampled=True)
        values = [
            Pair(submits[8][0], submits[1][0]),
            Pair(completed[4][0], completed[1][0]),
            Pair(submits[8][1], submits[1][1]),
            Pair(bare_submits[8][1], bare_submits[1][1]),
            Pair(submits[8][1] / submits[1][1], bare_submits[8][1] / bare_submits[1][1]),
            Pair(completed[4][1], completed[1][1]),
            Pair(bare_completed[4][1], bare_completed[1][1]),
            Pair(completed[4][1] / completed[1][1], bare_completed[4][1] / bare_completed[1][1]),
        ]
        return {figure.name: value for figure, value in zip(FIGURES, values, strict=True)}

    yield measure


def _submits(
    clients: int, total: int, bench: Benchmark, *, sampled: bool = False, program: str = _SUBMITTER
) -> tuple[float, float]:
    """Return submits per second, and milliseconds of processor time per submit, including the server's."""
    each = total // clients
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        pid = _server_pid(socket)
        command = [sys.executable, "-W", "ignore", "-c", program, str(each), str(socket)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    env=ours.variables(socket),
                    cwd=_ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for _ in range(clients)
        ]
        for process in processes:
            _read_line(process)
        before, begin = processor_time(pid), time.perf_counter()
        with _samples(bench, f"{clients} clients", [process.pid for process in processes] if sampled else []):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            used = [float(_read_line(process)) for process in processes]
        seconds = time.perf_counter() - begin
        spent = {"clients": sum(used), "server": processor_time(pid) - before}
    if sampled:
        return 0.0, 0.0
    label = "clients" if program is _SUBMITTER else "bare clients"
    _note(bench, f"{clients} {label}", clients * each, seconds, spent)
    return clients * each / seconds, sum(spent.values()) / (clients * each) * 1000


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a client ended with status {process.wait()}")
    return line


def _completed(workers: int, total: int, bench: Benchmark, *, sampled: bool = False) -> tuple[float, float]:
    """Return runs per second, and milliseconds of processor time per run of the workers and the server."""
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        client = stack.enter_context(ours.client(socket))
        plain = stack.enter_context(redis(socket))
        client.map(ours.noop, [{}] * total, environment=ours.HERE)
        command = [sys.executable, "-P", "-m", "workers"]
        environ = ours.variables(socket, concurrency=1)
        log = socket.parent / "ours.log"
        processes = [stack.enter_context(child(command, log=log, environ=environ)) for _ in range(workers)]
        until(lambda: len(client.workers()) == workers, "the workers", timeout=120)
        key = f"{client.records.instance}:local"
        pids = [process.pid for process in processes]
        with _samples(bench, f"{workers} workers", pids if sampled else []):
            ran, seconds, spent = _drain(plain, key, total, pids, _server_pid(socket))
    if sampled:
        return 0.0, 0.0
    _note(bench, f"{workers} workers", ran, seconds, spent)
    return ran / seconds, sum(spent.values()) / ran * 1000


def _bare_completed(workers: int, total: int, bench: Benchmark) -> tuple[float, float]:
    """Return the same for bare Celery."""
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        plain = stack.enter_context(redis(socket))
        app = bare.application(str(socket))
        results = [app.tasks["bare.noop"].apply_async() for _ in range(total)]
        processes = [
            stack.enter_context(bare.worker(socket, concurrency=1, name=f"w{number}")) for number in range(workers)
        ]
        until(lambda: len(app.control.ping(timeout=1.0)) == workers, "Celery's workers", timeout=120)
        pids = [process.pid for process in processes]
        ran, seconds, spent = _drain(plain, "celery", total, pids, _server_pid(socket))
        results.clear()  # before the server stops, because each result unsubscribes
    _note(bench, f"{workers} bare workers", ran, seconds, spent)
    return ran / seconds, sum(spent.values()) / ran * 1000


def _drain(
    plain: Any, key: str, total: int, workers: Sequence[int], server: int
) -> tuple[int, float, dict[str, float]]:
    """Measure from now, when all workers are ready, until the queue is nearly empty.

    Returns:
        Number of runs, seconds, and the processor time of workers and server.
    """

    def measure() -> tuple[int, float, float, float]:
        used = sum(processor_time(pid) for pid in workers)
        return int(plain.llen(key)), time.perf_counter(), used, processor_time(server)

    early = measure()
    until(lambda: plain.llen(key) <= total // 20, "an empty queue", timeout=300)
    late = measure()
    return early[0] - late[0], late[1] - early[1], {"workers": late[2] - early[2], "server": late[3] - early[3]}


def _server_pid(socket: Path) -> int:
    with redis(socket) as plain:
        return int(plain.info("server")["process_id"])


@contextmanager
def _samples(bench: Benchmark, name: str, pids: Sequence[int]) -> Iterator[None]:
    """Note the layers that use the processor in the first two of some processes."""
    with sampling(pids[:2]) as samples:
        yield
    if total := samples.total():
        bench.notes[f"samples of {name}"] = {layer: round(n / total, 3) for layer, n in samples.most_common()}


def _note(bench: Benchmark, name: str, runs: int, seconds: float, spent: dict[str, float]) -> None:
    cores = {who: round(used / seconds, 2) for who, used in spent.items()}
    bench.notes[name] = {"runs per second": round(runs / seconds), "cores used": cores}


PART = Part(name="clients", figures=FIGURES, opened=opened)
