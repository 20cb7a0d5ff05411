"""Two runs of one process don't affect each other: changes of the first are undone, or the process is replaced.

A row for each of :data:`~dispatcher.runner.process_state.aspects.ASPECTS` and for what isn't in that table.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, LocalEnvironment, RemoteEnvironment, context, flow, gather, task
from dispatcher.records.redis import open_redis
from dispatcher.runner.process_state.aspects import ASPECTS
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from tests.conftest import Server
from tests.integration.workers import KEYS, QUICK, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@flow
def look(expression: str, imports: str = "") -> tuple[int, str]:
    """Return the process id, and the value of an expression in that process."""
    import os

    variables: dict[str, Any] = {}
    exec(imports, variables)
    return os.getpid(), repr(eval(expression, variables))


@flow
def change(statements: str) -> int:
    import os

    exec(statements, {"__name__": "__main__"})
    return os.getpid()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for all tests of this module."""
    with Server.temporary() as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=url, signing_keys=json.dumps(KEYS))) as dispatcher:
        yield dispatcher


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with one pool process."""
    worker = Worker(url, tmp_path_factory.mktemp("process-state"), timing=QUICK, concurrency=1)
    try:
        worker.says("is ready")
        yield worker
    finally:
        worker.end()
        print(worker.output)  # noqa: T201 - pytest shows it where a test failed


#: Aspect, what a flow does, what the next one looks at.
PUT_BACK: list[tuple[str, str, str]] = [
    ("traces and hooks", "import sys; sys.excepthook = print; sys.setprofile(lambda *a: None)", "sys.excepthook"),
    ("traces and hooks", "import threading; threading.excepthook = print", "threading.excepthook"),
    ("timers", "import signal; signal.alarm(3600)", "signal.getitimer(signal.ITIMER_REAL)"),
    ("timers", "import signal; signal.setitimer(signal.ITIMER_PROF, 9e3)", "signal.getitimer(signal.ITIMER_PROF)"),
    ("signal handlers", "import signal; signal.signal(signal.SIGUSR2, print)", "signal.getsignal(signal.SIGUSR2)"),
    ("signal handlers", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.getsignal(15)"),
    ("signal handlers", "import signal; signal.signal(signal.SIGINT, print)", "signal.getsignal(signal.SIGINT)"),
    ("working directory", "import os, tempfile; os.chdir(tempfile.mkdtemp())", "os.getcwd()"),
    (
        "working directory",
        "import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
        "os.getcwd()",
    ),
    ("variables", "import os; os.environ['STRANGE'] = 'left'; del os.environ['PATH']", "sorted(os.environ.items())"),
    ("variables", "import os, time; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()", "time.tzname"),
    ("umask", "import os; os.umask(0o055)", "os.umask(os.umask(0) or 0)"),
    (
        "resource limits",
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (200, r.getrlimit(r.RLIMIT_NOFILE)[1]))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)",
    ),
    ("import path", "import sys; sys.path.insert(0, '/strange'); sys.meta_path.clear()", "sys.path, sys.meta_path"),
    ("import path", "import sys; sys.path = ['/strange']", "sys.path"),
    ("interpreter", "import sys; sys.setrecursionlimit(5000)", "sys.getrecursionlimit()"),
    ("interpreter", "import sys; sys.set_int_max_str_digits(700)", "sys.get_int_max_str_digits()"),
    ("interpreter", "import sys; sys.argv = ['strange']", "sys.argv"),
    ("interpreter", "import gc; gc.disable(); gc.set_threshold(1, 1, 1)", "gc.isenabled(), gc.get_threshold()"),
    (
        "interpreter",
        "import sys, threading; sys.set_coroutine_origin_tracking_depth(9); threading.stack_size(2**20)",
        "sys.get_coroutine_origin_tracking_depth(), threading.stack_size()",
    ),
    (
        "signal wakeup descriptor",
        "import os, signal; r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w)",
        "signal.set_wakeup_fd(-1)",
    ),
    ("builtins", "import builtins; builtins.strange = 1; builtins.round = print", "round(1), sorted(vars(builtins))"),
    ("warnings", "import warnings; warnings.simplefilter('error'); warnings.showwarning = print", "warnings.filters"),
    ("locale", "import locale; locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL)"),
    ("socket timeout", "import socket; socket.setdefaulttimeout(3)", "socket.getdefaulttimeout()"),
    ("priority and processors", "import os; os.nice(3)", "os.nice(0)"),
    ("priority and processors", "import os; os.sched_setaffinity(0, {0})", "os.sched_getaffinity(0)"),
    ("standard input", "import os; os.close(0)", "os.fstat(0).st_ino"),
    (
        "registries",
        "import copyreg; copyreg.pickle(complex, lambda c: (str, ('stolen',)))",
        "complex in copyreg.dispatch_table",
    ),
    ("registries", "import gc; gc.callbacks.append(lambda *_: None)", "len(gc.callbacks)"),
    ("fault handler", "import faulthandler; faulthandler.enable(open('/dev/null', 'w'))", "faulthandler.is_enabled()"),
    ("traces and hooks", "import threading; threading.settrace(lambda *_: None)", "threading.gettrace()"),
    ("loggers", "import logging; logging.addLevelName(20, 'ODD')", "logging.getLevelName(20)"),
    ("loggers", "import logging; logging.setLogRecordFactory(print)", "logging.getLogRecordFactory()"),
    ("context variables", "import decimal; decimal.getcontext().prec = 5", "decimal.getcontext().prec"),
    ("state of libraries", "import tempfile; tempfile.tempdir = '/strange'", "tempfile.gettempdir()"),
    (
        "state of libraries",
        "import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())",
        "type(asyncio.get_event_loop_policy()._local._loop)",
    ),
    ("modules", "import sys, types; sys.modules['strange'] = types.ModuleType('strange')", "'strange' in sys.modules"),
    ("modules", "import sys, types; sys.modules['json'] = types.ModuleType('json')", "sys.modules['json'].__file__"),
    ("modules", "import sys; del sys.modules['json']", "'json' in sys.modules"),
    ("loggers", "import logging; logging.disable(logging.CRITICAL)", "logging.root.manager.disable"),
    ("loggers", "import logging; logging.getLogger().setLevel('ERROR')", "logging.getLogger().level"),
    (
        "loggers",
        "import logging; logging.getLogger().addHandler(logging.StreamHandler())",
        "len(logging.root.handlers)",
    ),
    (
        "loggers",
        "import logging; one = logging.getLogger('strange'); one.addHandler(logging.StreamHandler()); one.setLevel(1)",
        "logging.getLogger('strange').handlers, logging.getLogger('strange').level",
    ),
    (
        "loggers",
        "import logging.config; logging.config.dictConfig({'version': 1})",
        "logging.getLogger('dispatcher.flow').disabled, logging.getLogger('celery').disabled",
    ),
]

IMPORTS = "import asyncio, builtins, copyreg, decimal, faulthandler, gc, json, locale, logging, os, resource, signal\n"
IMPORTS += "import socket, sys, tempfile\n"
IMPORTS += "import threading, time, warnings"


@pytest.mark.parametrize(("aspect", "statements", "expression"), PUT_BACK)
def test_what_is_put_back(client: Dispatcher, worker: Worker, aspect: str, statements: str, expression: str) -> None:
    parameters = {"expression": expression, "imports": IMPORTS}
    before = client.submit(look, parameters).result(timeout=30)
    pid = client.submit(change, {"statements": statements}).result(timeout=30)
    after = client.submit(look, parameters).result(timeout=30)
    assert pid == before[0], "the same process"
    assert after == before


#: Aspect, what a flow does, what the worker says of it.
MEANS_A_FRESH_PROCESS: list[tuple[str, str, str]] = [
    ("blocked signals", "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])", "SIGUSR1"),
    (
        "threads left",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), name='mine', daemon=True).start()",
        "'mine' (sleep)",
    ),
    ("processes left", "import subprocess; subprocess.Popen(['sleep', '60'])", "(sleep)"),
    (
        "output",
        "import os; os.fork() or (os.setsid(), os.fork() and os._exit(0), __import__('time').sleep(9)); os.wait()",
        "still holds",
    ),
    ("open files", "import os; [os.open('/dev/null', 0) for _ in range(300)]", "changed"),
    ("user, group and session", "import os; os.setpgid(0, os.getppid() and os.getpgid(os.getppid()))", "changed"),
]


@pytest.mark.parametrize(("aspect", "statements", "message"), MEANS_A_FRESH_PROCESS)
def test_what_means_a_fresh_process(
    client: Dispatcher, worker: Worker, aspect: str, statements: str, message: str
) -> None:
    run = client.submit(change, {"statements": statements})
    pid = run.result(timeout=30)
    assert run.state is State.SUCCEEDED
    assert client.submit(look, {"expression": "1"}).result(timeout=30)[0] != pid
    wait_until(lambda: f"Run {run.id} left its process changed ({aspect}: " in worker.output, "a word in the log")
    (line,) = [line for line in worker.output.splitlines() if run.id in line and "left its process" in line]
    assert message in line
    assert "the process is replaced" in line
    assert client.get(run.id).state is State.SUCCEEDED


def test_each_row_of_the_table_has_a_test() -> None:
    tested = {row[0] for row in [*PUT_BACK, *MEANS_A_FRESH_PROCESS]}
    assert {aspect.name for aspect in ASPECTS} <= tested


def test_what_a_flow_has_left_ends_with_its_process(client: Dispatcher, worker: Worker) -> None:
    statements = "import subprocess; one = subprocess.Popen(['sleep', '600']); print(one.pid)"
    run = client.submit(change, {"statements": statements})
    run.result(timeout=30)
    (line,) = [line.text for line in run.logs()]
    wait_until(lambda: not Path(f"/proc/{line}").exists(), "the end of what was left")


def test_a_flow_that_has_bounded_its_memory_prints(client: Dispatcher, worker: Worker) -> None:
    """Regression: its first line waited for ever for a thread that died as it started."""
    statements = """
import resource
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, resource.RLIM_INFINITY))
print('said')
"""
    run = client.submit(change, {"statements": statements})
    run.result(timeout=30)
    assert [line.text for line in run.logs()] == ["said"]


def test_a_left_alarm_kills_nobody(client: Dispatcher, worker: Worker) -> None:
    """Regression: the next run was killed by SIGALRM."""
    statements = "import signal; signal.setitimer(signal.ITIMER_REAL, 0.2)"
    runs = [client.submit(change, {"statements": statements}, environment=LocalEnvironment(on_exit=_rest))]
    runs += [client.submit(change, {"statements": "import time; time.sleep(0.5)"}) for _ in range(2)]
    assert {run.result(timeout=30) for run in runs} == {runs[0].result()}


def _rest() -> None:
    import time

    time.sleep(0.5)


def test_many_that_leave_a_thread_each_come_to_their_end_at_once(client: Dispatcher, worker: Worker, url: str) -> None:
    """A job that was sent to a process that is about to exit goes to another one."""
    statements = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    runs = [client.submit(change, {"statements": statements}) for _ in range(10)]
    pids = {run.result(timeout=60) for run in runs}
    assert len(pids) == len(runs)
    records = open_redis(url)
    assert {records.runs.get(run.id)[0].rings for run in runs} == {1}
    records.close()


def test_modules_of_the_same_code_stay_and_those_of_other_code_go(
    client: Dispatcher, worker: Worker, tmp_path: Path
) -> None:
    (tmp_path / "strange_module.py").write_text("count = 0\n")
    load = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import strange_module; strange_module.count += 1"
    client.submit(change, {"statements": load}).result(timeout=30)
    client.submit(change, {"statements": f"{load}; assert strange_module.count == 2"}).result(timeout=30)
    _, loaded = client.submit(look, {"expression": "'strange_module' in sys.modules", "imports": "import sys"}).result()
    assert loaded == "False"


def test_random_numbers_are_no_strangers_own(client: Dispatcher, worker: Worker) -> None:
    parameters = {"expression": "random.random()", "imports": "import random"}
    drawn = set()
    for _ in range(3):
        client.submit(change, {"statements": "import random; random.seed(1)"}).result(timeout=30)
        drawn.add(client.submit(look, parameters).result(timeout=30)[1])
    assert len(drawn) == 3


def test_a_fresh_process_of_its_own(client: Dispatcher, worker: Worker) -> None:
    used = client.submit(look, {"expression": "1"}).result(timeout=30)[0]
    alone = LocalEnvironment(fresh_process=True)
    pids = [client.submit(look, {"expression": "1"}, environment=alone).result(timeout=30)[0] for _ in range(3)]
    after = client.submit(look, {"expression": "1"}).result(timeout=30)[0]
    assert len({used, *pids, after}) == 5


def test_runs_per_process(client: Dispatcher, url: str, tmp_path: Path) -> None:
    command = ("-c", "from dispatcher.cli import main; main()", "worker", "--runs-per-process", "2", "--label", "two")
    other = Worker(url, tmp_path, command=command, timing=QUICK, concurrency=1)
    try:
        other.says("is ready")
        there = LocalEnvironment(labels=["two"])
        pids = [client.submit(look, {"expression": "1"}, environment=there).result(30)[0] for _ in range(5)]
    finally:
        other.end()
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]


def test_a_run_that_is_repeated_meets_a_sound_process(client: Dispatcher, worker: Worker, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    statements = f"import os, logging; logging.disable(50); os.umask(0o777); open({mark!r}, 'x').close(); 1 / 0"
    run = client.submit(change, {"statements": statements}, retries=Retry(1, delay=0))
    error = run.exception(timeout=30)
    assert error is not None
    assert isinstance(error.__cause__, FileExistsError), "the second attempt came as far"
    assert Path(mark).stat().st_mode & 0o777 == 0


@task
def double(number: int) -> int:
    return 2 * number


@flow
def on_dask() -> int:
    import os

    assert gather(double.map(range(3))) == [0, 2, 4]
    return os.getpid()


def test_what_an_installed_module_adds_as_it_is_loaded_stays(client: Dispatcher, worker: Worker) -> None:
    """Seen: the backport importlib_metadata takes Python's own finder of distributions away, and puts in its own.

    Without that, no later run in the process could send a result that names an installed package.
    """
    pid, _ = client.submit(look, {"expression": "1", "imports": "import importlib_metadata"}).result(timeout=30)
    parameters = {"expression": "importlib.metadata.version('click')", "imports": "import importlib.metadata"}
    again, version = client.submit(look, parameters).result(timeout=30)
    assert again == pid
    assert version == repr(importlib.metadata.version("click"))


@pytest.mark.parametrize("processes", [False, True])
def test_a_dask_cluster_is_no_reason_for_a_fresh_process(client: Dispatcher, worker: Worker, processes: bool) -> None:
    """Its loop stays in the process, and holds nothing of the flow."""
    where = RemoteEnvironment(
        executor="dispatcher.executors.DaskExecutor",
        executor_kwargs={"cluster_kwargs": {"n_workers": 1, "threads_per_worker": 1, "processes": processes}},
    )
    pids = [client.submit(on_dask, environment=where).result(timeout=120) for _ in range(2)]
    pids.append(client.submit(look, {"expression": "1"}).result(timeout=30)[0])
    assert len(set(pids)) == 1, worker.output


TIDY = [
    "import asyncio; asyncio.run(asyncio.to_thread(print, 1))",
    "from concurrent.futures import ThreadPoolExecutor as T\nwith T(4) as t: list(t.map(print, range(9)))",
    "from concurrent.futures import ProcessPoolExecutor as P\nwith P(2) as p: list(p.map(abs, range(9)))",
    "import subprocess; subprocess.run(['true'])",
    "import subprocess; subprocess.Popen(['true']).poll(); import time; time.sleep(0.1)",
    "import multiprocessing as m\nwith m.Manager() as one: one.list([1])",
    "import os; pid = os.fork() or os._exit(0); os.waitpid(pid, 0)",
]


@pytest.mark.parametrize("statements", TIDY)
def test_what_a_flow_has_ended_itself_is_no_reason(client: Dispatcher, worker: Worker, statements: str) -> None:
    pids = {client.submit(change, {"statements": statements}).result(timeout=60) for _ in range(2)}
    assert len(pids) == 1, worker.output


@flow
def log(statements: str) -> None:
    import logging

    exec(statements, {"logging": logging, "context": context})


LEVELS: list[tuple[str, list[str]]] = [
    ("logging.getLogger().setLevel(10); logging.debug('1'); logging.getLogger('m').debug('2')", ["1", "m: 2"]),
    ("one = logging.getLogger('mine'); one.setLevel('DEBUG'); one.debug('1'); logging.debug('2')", ["mine: 1"]),
    ("context.logger.setLevel('DEBUG'); context.logger.debug('1')", ["1"]),
    ("logging.getLogger().setLevel('ERROR'); logging.info('1'); logging.error('2')", ["2"]),
    ("logging.debug('1'); context.logger.debug('2'); context.logger.info('3')", ["3"]),
]


@pytest.mark.parametrize(("statements", "expected"), LEVELS)
def test_levels_that_a_flow_asks_for(client: Dispatcher, worker: Worker, statements: str, expected: list[str]) -> None:
    run = client.submit(log, {"statements": statements})
    run.result(timeout=30)
    assert [line.text for line in run.logs()] == expected


def test_a_setting_gives_the_default_level(client: Dispatcher, url: str, tmp_path: Path) -> None:
    environ = {"DISPATCHER__DEFAULTS__LOG_LEVEL": "DEBUG"}
    other = Worker(url, tmp_path, environ=environ, timing=QUICK, concurrency=1, labels=["debug"])
    try:
        other.says("is ready")
        statements = "logging.debug('1'); context.logger.debug('2'); logging.getLogger('m').debug('3')"
        run = client.submit(log, {"statements": statements}, environment=LocalEnvironment(labels=["debug"]))
        run.result(timeout=30)
        assert [line.text for line in run.logs()] == ["1", "2", "m: 3"]
    finally:
        other.end()
