"""Up to 8 submitting clients and 4 workers: whether a run costs more where there are more of them.

More of them do more until a core is full. From there on the rate must not fall, and the processor time that each run
takes tells what taking turns costs; as this is the system's doing too, bare Celery's are measured beside ours.
Where the processor goes then, samples of two of the clients and two of the workers tell, which are taken apart from
what is measured.
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
from benchmarks.bench import Bench, Measure, Part
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

#: Connects, says so, waits for a word, submits so many, says how much processor time that took.
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

#: The same of bare Celery.
_BARE = """
import os, sys
from benchmarks import bare
noop = bare.application(sys.argv[2]).tasks["bare.noop"]
kept = [noop.apply_async()]
print("ready", flush=True)
sys.stdin.readline()
before = sum(os.times()[:2])
for _ in range(int(sys.argv[1])):
    kept.append(noop.apply_async())
print(sum(os.times()[:2]) - before, flush=True)
os._exit(0)  # thousands of results, each of which would be given up one by one
"""

_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """Servers and processes come and go with each number of them."""

    def measure(number: int) -> Measured:
        submits, completed, theirs, done = {}, {}, {}, {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for count in (1, 2, 4, 8):
                bench.say(f"{count} clients")
                submits[count] = _submits(count, bench.count(2400), bench)
            for count in (1, 8):
                bench.say(f"{count} clients of bare Celery")
                theirs[count] = _submits(count, bench.count(2400), bench, program=_BARE)
            for count in (1, 2, 4):
                bench.say(f"{count} workers")
                completed[count] = _completed(count, bench.count(4000), bench)
            for count in (1, 4):
                bench.say(f"{count} workers of bare Celery")
                done[count] = _done(count, bench.count(2000 * (1 + count)), bench)
            if number == 0 and not missing():
                bench.say("samples")
                _submits(8, bench.count(4800), bench, sampled=True)
                _completed(4, bench.count(4000), bench, sampled=True)
        values = [
            Pair(submits[8][0], submits[1][0]),
            Pair(completed[4][0], completed[1][0]),
            Pair(submits[8][1], submits[1][1]),
            Pair(theirs[8][1], theirs[1][1]),
            Pair(submits[8][1] / submits[1][1], theirs[8][1] / theirs[1][1]),
            Pair(completed[4][1], completed[1][1]),
            Pair(done[4][1], done[1][1]),
            Pair(completed[4][1] / completed[1][1], done[4][1] / done[1][1]),
        ]
        return {figure.name: value for figure, value in zip(FIGURES, values, strict=True)}

    yield measure


def _submits(
    clients: int, total: int, bench: Bench, *, sampled: bool = False, program: str = _SUBMITTER
) -> tuple[float, float]:
    """Submits per second, and milliseconds of processor time per submit, the server's included."""
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
            _heard(process)
        before, begin = processor_time(pid), time.perf_counter()
        with _samples(bench, f"{clients} clients", [one.pid for one in processes] if sampled else []):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            used = [float(_heard(process)) for process in processes]
        seconds = time.perf_counter() - begin
        spent = {"clients": sum(used), "server": processor_time(pid) - before}
    if sampled:
        return 0.0, 0.0
    whose = "clients" if program is _SUBMITTER else "bare clients"
    _note(bench, f"{clients} {whose}", clients * each, seconds, spent)
    return clients * each / seconds, sum(spent.values()) / (clients * each) * 1000


def _heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a client ended with status {process.wait()}")
    return line


def _completed(workers: int, total: int, bench: Bench, *, sampled: bool = False) -> tuple[float, float]:
    """Runs per second, and milliseconds of processor time per run, the server's included; nothing else is counted."""
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        client = stack.enter_context(ours.client(socket))
        look = stack.enter_context(redis(socket))
        client.map(ours.noop, [{}] * total, environment=ours.HERE)
        command = [sys.executable, "-P", "-m", "workers"]
        environ = ours.variables(socket, concurrency=1)
        log = socket.parent / "ours.log"
        processes = [stack.enter_context(child(command, log=log, environ=environ)) for _ in range(workers)]
        until(lambda: len(client.workers()) == workers, "the workers", timeout=120)
        key = f"{client.records.instance}:local"
        with _samples(bench, f"{workers} workers", [one.pid for one in processes] if sampled else []):
            ran, seconds, spent = _emptied(look, key, total, [one.pid for one in processes], _server_pid(socket))
    if sampled:
        return 0.0, 0.0
    _note(bench, f"{workers} workers", ran, seconds, spent)
    return ran / seconds, sum(spent.values()) / ran * 1000


def _done(workers: int, total: int, bench: Bench) -> tuple[float, float]:
    """The same of bare Celery."""
    with ExitStack() as stack:
        socket = stack.enter_context(server())
        look = stack.enter_context(redis(socket))
        app = bare.application(str(socket))
        kept = [app.tasks["bare.noop"].apply_async() for _ in range(total)]
        processes = [
            stack.enter_context(bare.worker(socket, concurrency=1, name=f"w{number}")) for number in range(workers)
        ]
        until(lambda: len(app.control.ping(timeout=1.0)) == workers, "Celery's workers", timeout=120)
        ran, seconds, spent = _emptied(look, "celery", total, [one.pid for one in processes], _server_pid(socket))
        kept.clear()  # while there is a server to tell
    _note(bench, f"{workers} bare workers", ran, seconds, spent)
    return ran / seconds, sum(spent.values()) / ran * 1000


def _emptied(
    look: Any, key: str, total: int, workers: Sequence[int], server: int
) -> tuple[int, float, dict[str, float]]:
    """From now, when all workers are there and some is done, until little is left in their queue: how many were done,
    in how many seconds, and the processor time that workers and server used."""

    def seen() -> tuple[int, float, float, float]:
        used = sum(processor_time(pid) for pid in workers)
        return int(look.llen(key)), time.perf_counter(), used, processor_time(server)

    early = seen()
    until(lambda: look.llen(key) <= total // 20, "an empty queue", timeout=300)
    late = seen()
    return early[0] - late[0], late[1] - early[1], {"workers": late[2] - early[2], "server": late[3] - early[3]}


def _server_pid(socket: Path) -> int:
    with redis(socket) as look:
        return int(look.info("server")["process_id"])


@contextmanager
def _samples(bench: Bench, name: str, pids: Sequence[int]) -> Iterator[None]:
    """Note which layers use the processor in the first two of some processes."""
    with sampling(pids[:2]) as found:
        yield
    if total := found.total():
        bench.notes[f"samples of {name}"] = {layer: round(n / total, 3) for layer, n in found.most_common()}


def _note(bench: Bench, name: str, runs: int, seconds: float, spent: dict[str, float]) -> None:
    cores = {who: round(used / seconds, 2) for who, used in spent.items()}
    bench.notes[name] = {"runs per second": round(runs / seconds), "cores used": cores}


PART = Part(name="clients", figures=FIGURES, opened=opened)
