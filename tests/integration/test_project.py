"""A user's project on a real worker: code in ``__main__``, in a notebook's cells and in a module beside it."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PYTHON
from tests.dask_cluster import cluster
from tests.integration.workers import KEYS, Worker

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]
RunProgram = Callable[..., str]

HELPER = """
FACTOR = 3

class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return type(self) is type(other) and self.x == other.x
    def __repr__(self): return f"Point({self.x})"

class NoLuck(Exception):
    def __init__(self, name, *, code):
        super().__init__(f"no luck, {name}")
        self.code = code

def times(x): return Point(x * FACTOR)
"""

SCRIPT = """
import asyncio, pickle, subprocess, sys
import helper, workers
from dispatcher import Dispatcher, FlowFailed, LocalEnvironment, Run, State, context, flow, gather, task

LIMIT = 10

@task
def double(x): return x * 2

@flow
def by_module(x: int): return helper.times(min(x, LIMIT)), workers.mine()

@flow
async def fails(name: str):
    await asyncio.sleep(0)
    raise helper.NoLuck(name, code=7)

@flow
def fan(n: int): return double.map(range(n))

def adder(k: int):
    @flow(name="adder")
    def add(x: int): return x + k
    return add

def enter(): print("enter", context.attempt, context.labels, context.tags, dict(context.parameters))
def leave(): print("leave", context.state, type(context.exception).__name__)

async def awaited(run): return await run

if __name__ == "__main__":
    with Dispatcher() as client:
        assert client.submit(by_module, {"x": 20}).result(timeout=30) == (helper.Point(30), "mine")
        assert client.submit(fan, {"n": 3}).result(timeout=30) == [0, 2, 4]
        assert client.submit(adder(5), {"x": 1}).result(timeout=30) == 6
        assert client.submit(flow(lambda x: x * 7), {"x": 1}).result(timeout=30) == 7
        environment = LocalEnvironment(on_start=enter, on_exit=leave)
        run = client.submit(fails, {"name": "you"}, environment=environment, tags=["t"])
        seen = []
        run.on_start(seen.append)
        run.on_exit(seen.append)
        try:
            asyncio.run(awaited(run))
        except FlowFailed as error:
            assert type(error.__cause__) is helper.NoLuck, error.__notes__
            assert (str(error.__cause__), error.__cause__.code) == ("no luck, you", 7)
            assert (error.run_id, error.state) == (run.id, State.FAILED)
            assert error.traceback.startswith("Traceback") and "in fails" in error.traceback
            assert "another exception" not in error.traceback
        else:
            raise AssertionError("no error")
        assert [line.text for line in run.logs()] == ["enter 1 () ('t',) {'name': 'you'}", "leave FAILED NoLuck"]
        good = client.submit(by_module, {"x": 1})
        good.wait(30)
        opens = f"import pickle; print(pickle.loads({pickle.dumps(good)!r}).result(5))"
        told = subprocess.run([sys.executable, "-W", "error", "-c", opens], text=True, capture_output=True, check=True)
        assert told.stdout == "(Point(3), 'mine')\\n", told
    assert [(event.kind, event.state, event.final) for event in seen] == [
        ("started", "RUNNING", False), ("exited", "FAILED", True)
    ], seen
    print("all well")
"""

NOTEBOOK = """
import ast, asyncio, inspect, linecache, pathlib
import __main__

async def run(cells):
    for number, cell in enumerate(cells):
        name = f"<ipython-input-{number}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
        code = compile(cell, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if inspect.iscoroutine(more := eval(code, __main__.__dict__)):
            await more

asyncio.run(run(pathlib.Path("cells").read_text().split("# %%")))
"""

CELLS = """
from dispatcher import Dispatcher, FlowFailed, flow, gather, task
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return type(self) is type(other) and self.x == other.x
FACTOR = 3
@task
def scaled(p): return Point(p.x * FACTOR)
@flow
def scale(points): return gather(scaled.map(points))
client = Dispatcher()
# %%
run = client.submit(scale, {"points": [Point(1), Point(2)]})
assert await run == [Point(3), Point(6)]
# %%
FACTOR = 4
assert await client.submit(scale, {"points": [Point(1)]}) == [Point(4)]
# %%
class Point(Point):
    def __repr__(self): return "better"
@flow
async def later(p): return p
assert repr(await client.submit(later, {"p": Point(1)})) == "better"
assert later(5) == 5
# %%
@flow
def wrong(): return 1 / 0
try:
    await client.submit(wrong)
except FlowFailed as error:
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "in wrong" in error.traceback, error.traceback
else:
    raise AssertionError("no error")
client.close()
print("all well")
"""

DASK = """
import os, sys
import helper
from dispatcher import Dispatcher, RemoteEnvironment, flow, gather, task

@task
def scaled(x): return helper.times(x), os.getpid()

@flow
def fan(n: int): return gather(scaled.map(range(n))), os.getpid()

if __name__ == "__main__":
    there = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"address": sys.argv[1]}, labels=["research"])
    with Dispatcher() as client:
        runs = client.map(fan, [{"n": n} for n in range(1, 5)], environment=there)
        seen = {}
        for run in client.as_completed(runs, timeout=60):
            scaled, flows_pid = run.result(timeout=0)
            assert flows_pid not in {pid for _, pid in scaled}
            seen[run.id] = [point for point, _ in scaled]
    assert [seen[run.id] for run in runs] == [[helper.times(x) for x in range(n)] for n in range(1, 5)]
    print("all well")
"""

SUBSCRIBER = """
import sys
from dispatcher import Dispatcher
with Dispatcher() as client, client.subscribe("billing", timeout=float(sys.argv[1])) as events:
    for event in events:
        print(event.run_id, event.attempt, event.kind, flush=True)
        if event.kind == sys.argv[2]:
            break
"""


@pytest.fixture
def run_program(server_url: str, tmp_path: Path) -> RunProgram:
    """Runs a program of the user in their project, which has a folder ``workers``; returns its output."""
    project = tmp_path / "project"
    (project / "workers").mkdir(parents=True)
    (project / "workers" / "__init__.py").write_text("def mine(): return 'mine'\n")
    (project / "helper.py").write_text(HELPER)
    environ = {**os.environ, "DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}

    def run(source: str, *arguments: str, **files: str) -> str:
        for name, text in {"program.py": source, **files}.items():
            (project / name).write_text(textwrap.dedent(text))
        done = subprocess.run(
            [PYTHON, "-W", "error", "program.py", *arguments],
            cwd=project, env=environ, text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
        return done.stdout

    return run


def test_a_script_with_a_module_beside_and_a_folder_named_workers(
    run_program: RunProgram, start_worker: StartWorker
) -> None:
    start_worker()
    assert run_program(SCRIPT) == "all well\n"


def test_a_notebook(run_program: RunProgram, start_worker: StartWorker) -> None:
    start_worker()
    assert run_program(NOTEBOOK, cells=CELLS) == "all well\n"


def test_a_dask_cluster_of_its_own(run_program: RunProgram, start_worker: StartWorker, tmp_path: Path) -> None:
    with cluster(tmp_path) as address:
        start_worker(backends=["remote"], labels=["research"])  # now: Dask's variables name the certificates
        assert run_program(DASK, address) == "all well\n"


def test_a_subscriber_of_a_new_process_goes_on_where_the_last_one_stopped(
    run_program: RunProgram, start_worker: StartWorker
) -> None:
    assert run_program(SUBSCRIBER, "0.1", "never") == ""
    start_worker()
    run_program(SCRIPT)
    first = run_program(SUBSCRIBER, "5", "started").splitlines()
    rest = run_program(SUBSCRIBER, "1", "never").splitlines()
    assert rest[0] == first[-1]  # it was given, and the next was never asked for
    runs = list(dict.fromkeys(line.split()[0] for line in first + rest))
    assert len(runs) == 6
    whole = ["queued", "claimed", "provisioning", "pending", "started", "exited"]
    for run_id in runs:
        assert [line.split()[2] for line in first + rest[1:] if line.startswith(run_id)] == whole
    assert run_program(SUBSCRIBER, "0.1", "never") == ""
