"""The last lines of a process that dies in any way arrive: in the log, in order, and with the error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import Dispatcher, RunCrashed, flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.settings import Settings
from tests.conftest import Server
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import KEYS, QUICK, Bench, Worker

pytestmark = pytest.mark.integration

#: What a flow does, and the last lines that must be there.
DEATHS: list[tuple[str, list[str]]] = [
    ("print('last words'); ctypes.string_at(0)", ["last words"]),
    ("print('last words', flush=True); os._exit(3)", ["last words"]),
    ("logging.error('last words'); os.kill(os.getpid(), 9)", ["last words"]),
    ("os.write(2, b'last words\\n'); os.abort()", ["last words"]),
    ("print('last words'); time.sleep(0.3); os._exit(3)", ["last words"]),
    ("sys.stderr.write('Fatal: no device'); os._exit(1)", ["Fatal: no device"]),
    ("os.write(1, b'Fatal: no device'); os._exit(1)", ["Fatal: no device"]),
    ("[print('line', n) for n in range(1000)]; os._exit(1)", [f"line {n}" for n in range(1000)]),
    ("[os.write(1, b'line %d\\n' % n) for n in range(1000)]; os._exit(1)", [f"line {n}" for n in range(1000)]),
    ("print('ä\\udcff' * 10); os._exit(1)", ["ä\\udcff" * 10]),
    ("import subprocess; subprocess.run('echo from a child; kill -9 $PPID', shell=True)", ["from a child"]),
    ("print('first'); os.write(1, b'second\\n'); print('third'); os._exit(1)", ["first", "second", "third"]),
    ("print('x' * 15000); print('last words'); os._exit(1)", ["x" * 15000, "last words"]),
]


@flow
def die(statements: str) -> None:
    variables: dict[str, object] = {}
    exec("import ctypes, logging, os, sys, time", variables)
    exec(statements, variables)


@flow
def crash() -> None:
    import ctypes
    import faulthandler

    faulthandler.enable()
    ctypes.string_at(0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server.temporary() as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dispatcher]:
    """A client of a server with a worker."""
    worker = Worker(url, tmp_path_factory.mktemp("last"), timing=QUICK, concurrency=2)
    try:
        worker.says("is ready")
        with Dispatcher(settings=Settings.load(url=url, signing_keys=json.dumps(KEYS))) as dispatcher:
            yield dispatcher
    finally:
        worker.end()
        print(worker.output)  # noqa: T201 - pytest shows it where a test failed


@pytest.mark.parametrize(("statements", "expected"), DEATHS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_pool_process_that_dies(client: Dispatcher, statements: str, expected: list[str]) -> None:
    run = client.submit(die, {"statements": statements})
    error = run.exception(timeout=60)
    assert isinstance(error, RunCrashed)
    lines = [line.text for line in run.logs()]
    assert lines == expected
    assert list(error.log_tail) == expected[-50:]


def test_what_faulthandler_says(client: Dispatcher) -> None:
    run = client.submit(crash)
    error = run.exception(timeout=60)
    assert isinstance(error, RunCrashed)
    lines = [line.text for line in run.logs()]
    assert "Fatal Python error: Segmentation fault" in lines
    assert any(line.endswith("in crash") for line in lines)
    assert list(error.log_tail) == lines[-50:]


def test_lines_of_one_run_are_no_others(client: Dispatcher) -> None:
    """A process that dies in its second run reports no line of its first."""
    for _ in range(4):
        client.submit(die, {"statements": "print('of the first', end='')"}).result(timeout=30)
    run = client.submit(die, {"statements": "os._exit(1)"})
    assert isinstance(run.exception(timeout=30), RunCrashed)
    assert list(run.logs()) == []


@pytest.mark.parametrize(("statements", "expected"), DEATHS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_process_in_a_container_that_dies(url: str, tmp_path: Path, statements: str, expected: list[str]) -> None:
    bench = Bench(url, timing=QUICK)
    assigned = AssignedRun(bench, tmp_path, die, parameters={"statements": statements})
    runner = RunnerProcess(assigned)
    try:
        assert runner.wait() != 0
        assert bench.lines(assigned.run_id) == expected
        (report,) = [
            report
            for report in assigned.reports()
            if report.run_id == assigned.run_id and report.kind is ReportKind.DIED
        ]
        assert list(report.outcome.log_tail) == expected[-50:]
        assert all(line in runner.output for line in expected if line.isascii()), "also shown by the container"
    finally:
        runner.end()
        bench.records.inbox.drop("fake/0", until=bench.records.inbox.read("fake/0")[-1][0])
        bench.close()
