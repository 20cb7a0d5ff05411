"""Code bundles on a real worker: edited code, projects with the same names, names of the engine's own modules."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.code.bundles import LOOK_AGAIN_AFTER
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause
from tests.conftest import Server
from tests.integration.projects import FlowError, Project
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import QUICK, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Make = Callable[..., Project]

ETL = """
    import os, time
    from pathlib import Path
    from dispatcher import flow
    import helper

    @flow
    def look(): return os.getpid(), helper.NAME

    @flow
    def hold(path: str):
        Path(path).touch()
        while Path(path).exists():
            time.sleep(0.01)
        import late
        return os.getpid(), helper.NAME, late.NAME
    """


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for all tests of this module."""
    with Server.temporary() as server:
        yield server.url


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with two pool processes."""
    worker = Worker(url, tmp_path_factory.mktemp("code-bundles"), timing=QUICK, concurrency=2)
    try:
        worker.says("is ready")
        yield worker
    finally:
        worker.end()
        print(worker.output)  # noqa: T201 - pytest shows it where a test failed


@pytest.fixture
def make(url: str, worker: Worker, tmp_path: Path) -> Iterator[Make]:
    """Makes projects, each with a program that submits its flows."""
    made: list[Project] = []

    def make_project(files: Mapping[str, Any], *, name: str = "project", **options: Any) -> Project:
        made.append(Project(tmp_path / name, url, files, **options))
        return made[-1]

    try:
        yield make_project
    finally:
        for project in made:
            project.close()
            print(project.output)  # noqa: T201 - pytest shows it where a test failed


def held(project: Project, path: Path) -> str:
    """Start a run that goes on until the file at ``path`` is removed."""
    run_id = project.submit("hold", {"path": str(path)})
    wait_until(path.exists, "the flow's start", timeout=30)
    return run_id


def test_each_edit_is_seen_beside_a_run_of_the_old_code(make: Make, tmp_path: Path, worker: Worker) -> None:
    project = make({"etl.py": ETL, "helper.py": "NAME = 'old'", "late.py": "NAME = 'old'"})
    old = held(project, tmp_path / "held")
    answers = []
    for number in range(20):
        project.write({"helper.py": f"NAME = {number}", "late.py": f"NAME = {number}"})
        due = time.monotonic() + LOOK_AGAIN_AFTER
        wait_until(lambda: time.monotonic() > due, "the next look", timeout=5)  # noqa: B023 - called at once
        answers.append(project.run("look"))
    assert [name for _, name in answers] == list(range(20))
    pids = {pid for pid, _ in answers}
    assert len(pids) == 1
    assert pids <= set(worker.children)
    (tmp_path / "held").unlink()
    pid, *names = project.result(old)
    assert names == ["old", "old"]
    assert pid not in pids


def test_projects_with_modules_of_one_name_alternate_in_one_process(make: Make, tmp_path: Path) -> None:
    package = {"helper/__init__.py": "from .core import NAME", "late.py": "NAME = 0"}
    left = make({**package, "etl.py": ETL, "helper/core.py": "NAME = 'left'"}, name="left")
    right = make({**package, "etl.py": ETL, "helper/core.py": "NAME = 'right'"}, name="right")
    old = held(left, tmp_path / "held")  # the other process is left
    answers = [project.run("look") for _ in range(5) for project in (left, right)]
    assert [name for _, name in answers] == ["left", "right"] * 5
    assert len({pid for pid, _ in answers}) == 1
    (tmp_path / "held").unlink()
    assert left.result(old)[1:] == ["left", 0]


EXTENSION = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("xxlimited.*.so"), None)


@pytest.mark.skipif(EXTENSION is None, reason="this Python has no extension module to copy")
def test_a_process_that_cannot_forget_an_extension_module_is_replaced(make: Make, worker: Worker) -> None:
    assert EXTENSION is not None
    etl = """
        import os
        from dispatcher import flow
        from native import xxlimited

        @flow
        def look(): return os.getpid(), xxlimited.__file__.endswith(".so")
        """
    native = {f"native/{EXTENSION.name}": EXTENSION.read_bytes()}
    project = make({"etl.py": etl, "native/__init__.py": "", **native})
    answers = [project.run("look") for _ in range(3)]
    assert [loaded for _, loaded in answers] == [True] * 3
    assert len({pid for pid, _ in answers}) == 3
    assert "extension module native.xxlimited of the flow's project" in worker.output


def test_a_process_in_which_a_thread_of_the_project_goes_on_is_replaced(make: Make) -> None:
    etl = """
        import os, threading
        from dispatcher import flow

        @flow
        def look():
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            return os.getpid()
        """
    project = make({"etl.py": etl})
    assert len({project.run("look") for _ in range(3)}) == 3


def test_tracebacks_show_the_line_and_the_place_in_the_project(make: Make, tmp_path: Path) -> None:
    etl = "from dispatcher import flow\nfrom pkg.deep import broken\n@flow\ndef fails(): broken.f()\n"
    files = {"pkg/__init__.py": "", "pkg/deep/__init__.py": "", "pkg/deep/broken.py": "def f(): return 1 / 0\n"}
    project = make({"etl.py": etl, **files})
    with pytest.raises(FlowError) as caught:
        project.run("fails")
    assert '/pkg/deep/broken.py", line 1, in f' in caught.value.traceback
    assert "def f(): return 1 / 0" in caught.value.traceback
    assert str(tmp_path) not in caught.value.traceback


KINDS = """
    import os, sys, time, logging
    from pathlib import Path
    from dispatcher import LocalEnvironment, context, flow

    def enter(): print("enter", context.attempt)
    def leave(): print("leave", context.state)
    HERE = LocalEnvironment(on_start=enter, on_exit=leave)

    @flow
    def look(): return sorted(sys.modules)

    @flow
    def fails(): raise ValueError("no luck")

    class Odd(Exception):
        def __init__(self, lock): self.lock = lock

    @flow
    def fails_oddly():
        import threading
        raise Odd(threading.Lock())

    @flow
    def large(): return "x" * 3_000_000

    @flow
    def pickled(): return {1, 2}

    @flow
    def prints():
        print("printed"); os.system("echo from a child"); logging.getLogger("own").warning("logged")
        print("wrong", file=sys.stderr)

    @flow
    def sleeps(path: str):
        Path(path).touch()
        time.sleep(60)

    @flow
    def returns_a_lock():
        import threading
        return threading.Lock()

    @flow(environment=HERE)
    def with_callbacks(): return 1

    @flow
    def dies(): os._exit(3)
    """


KINDS_NAMES = ("look", "fails", "fails_oddly", "large", "pickled", "prints", "returns_a_lock", "with_callbacks", "dies")


def run_all_kinds(project: Project, directory: Path) -> dict[str, str]:
    """Run flows that end in every way, and return how."""
    ends = {}
    directory.mkdir()
    timed, cancelled = directory / "timed", directory / "cancelled"
    run_ids = {name: project.submit(name) for name in KINDS_NAMES}
    run_ids["timed"] = project.submit("sleeps", {"path": str(timed)}, timeout=1)
    run_ids["cancelled"] = project.submit("sleeps", {"path": str(cancelled)})
    wait_until(cancelled.exists, "the flow's start", timeout=60)
    project.cancel(run_ids["cancelled"])
    for name, run_id in run_ids.items():
        try:
            ends[name] = type(project.result(run_id)).__name__
        except FlowError as error:
            ends[name] = re.sub(r"run \w+|0x\w+", "", str(error))
    return ends


def tops(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def own_modules(names: Iterable[str]) -> dict[str, str]:
    """Files of a project that has modules of these names, and a flow that returns those that it doesn't get."""
    etl = textwrap.dedent(KINDS) + "".join(f"import {name}\n" for name in sorted(names))
    etl += f"@flow\ndef foreign(): return [n for n in {sorted(names)} if not hasattr(sys.modules[n], 'OWN')]\n"
    return {"etl.py": etl, **{f"{name}.py": "OWN = True\n" for name in names}}


#: What the interpreter starts with (``python -m``), modules that do something when they are imported, and a name that a
#: finder of setuptools takes before any path is searched, in the program too.
NEVER_OWN = {"runpy", "antigravity", "this", "distutils", *sys.builtin_module_names}


def test_the_engines_late_imports_never_resolve_in_a_bundle(make: Make, tmp_path: Path, worker: Worker) -> None:
    """A project has a module of every name that its own program doesn't need from elsewhere: of the whole standard
    library and of all that the worker has loaded. Its flows get their own, and all that the engine does still works."""
    plain = make({"etl.py": KINDS}, name="plain")
    ends = run_all_kinds(plain, tmp_path / "1")
    there = tops([*sys.stdlib_module_names, *plain.run("look"), "kubernetes", "dask", "distributed", "pandas"])
    by_c_code = ("__", "_cython_", "cython_runtime")  # which imports nothing
    names = {name for name in there - tops(plain.loaded()) - NEVER_OWN if not name.startswith(by_c_code)}
    assert {"workers", "yaml", "kubernetes", "celery", "multiprocessing"} <= names
    project = make(own_modules(names), name="hostile")
    assert run_all_kinds(project, tmp_path / "2") == ends
    assert project.run("foreign") == []
    plain.run("look")
    assert "Traceback" not in worker.output


def test_a_project_replaces_modules_that_the_engine_has_loaded(make: Make) -> None:
    names = ("queue", "redis", "typing_extensions", "psutil")
    etl = f"""
        import sys
        for name in {names}: sys.modules.pop(name, None)
        import queue, redis, typing_extensions, psutil
        """
    files = {f"{name}.py": f"OWN = {name!r}" for name in names}
    flows = """
        from dispatcher import flow
        @flow
        def look():
            import queue, concurrent.futures, logging.handlers
            with concurrent.futures.ThreadPoolExecutor() as pool:
                doubled = pool.submit(lambda: 2).result()
            return [queue.OWN, redis.OWN, typing_extensions.OWN, psutil.OWN, doubled]
        """
    project = make({"etl.py": textwrap.dedent(etl) + textwrap.dedent(flows), **files})
    for _ in range(2):
        assert project.run("look") == [*names, 2]


def test_a_package_in_place_of_backends_is_told_at_submit(make: Make) -> None:
    etl = """
        import sys
        for name in [name for name in sys.modules if name.partition(".")[0] == "backends"]: del sys.modules[name]
        import backends.mine
        from dispatcher import KubernetesJobEnvironment, flow
        @flow
        def look(): return 1
        """
    project = make({"etl.py": etl, "backends/__init__.py": "", "backends/mine.py": ""})
    with pytest.raises(FlowError, match=r"finds .*project/backends in place of our package 'backends': rename yours"):
        project.run("look")


@pytest.mark.parametrize(
    ("flow", "cause", "result"),
    [("foreign", None, "[]"), ("fails", Cause.USER_ERROR, None), ("large", None, None), ("prints", None, "null")],
)
def test_a_container_imports_from_the_bundle_and_its_runner_does_not(
    flow: str, cause: Cause | None, result: str | None, bench: Bench, server_url: str, tmp_path: Path
) -> None:
    """The same with a container's runner, whose parent and child process import late as well."""
    names = {"yaml", "kubernetes", "workers", "celery", "multiprocessing", "pkgutil", "http", "tarfile", "ctypes"}
    files = own_modules(names)
    etl = files["etl.py"].replace("@flow\n", "@flow(environment=HERE)\n")
    fake = f"FakeEnvironment({str(tmp_path)!r}, "
    files["etl.py"] = "from backends.fake import FakeEnvironment\n" + etl.replace("LocalEnvironment(", fake)
    project = Project(tmp_path / "project", server_url, files)
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o700)
    try:
        assigned = AssignedRun(bench, tmp_path, project.submit(flow))
        runner = RunnerProcess(assigned, variables={"TMPDIR": str(temporary)})
        assert runner.wait() == 0, runner.output
    finally:
        project.close()
    report = assigned.report_of(ReportKind.EXITED)
    assert report.outcome.cause is cause, report.outcome
    assert report.exit_call is ExitCall.CALLED
    if result is not None:
        assert report.outcome.result is not None
        assert report.outcome.result.inline == result
    assert list(temporary.glob("dispatcher-*")) == [], "it is the host's, if the container is a process"


def blobs(url: str) -> dict[str, int]:
    """Return the keys of all blobs on a server, with the bytes that each takes there."""
    with redis.Redis.from_url(url) as client:
        keys = [key for key in client.scan_iter(count=10_000) if b"blob" in key]
        return {key.decode(): int(client.memory_usage(key, samples=0) or 0) for key in keys}


def test_ten_thousand_submits_leave_one_bundle(server_url: str, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    files: dict[str, str | bytes] = {"etl.py": ETL, "helper.py": "NAME = 1", "late.py": "", "data.bin": data}
    project = Project(tmp_path / "project", server_url, files)
    try:
        project.submit("look")
        first = blobs(server_url)
        assert sum(size > 100_000 for size in first.values()) == 1
        assert len(first) == 2, "the bundle, and the flow by reference"
        assert sum(project.map("look", 1_000) for _ in range(9)) == 9_000
        for _ in range(999):
            project.submit("look")
        left = blobs(server_url)
    finally:
        project.close()
    assert left.keys() == first.keys()
    assert sum(left.values()) < 1.1 * sum(first.values())


def test_the_cache_of_a_worker(start_worker: Callable[..., Worker], server_url: str, tmp_path: Path) -> None:
    """It is private, shared by its processes, isn't used where it was changed, and goes with the worker."""
    worker = start_worker(concurrency=2, environ={"TMPDIR": str(tmp_path)})
    project = Project(tmp_path / "project", server_url, {"etl.py": ETL, "helper.py": "NAME = 1", "late.py": "NAME = 1"})
    try:
        run_ids = [held(project, tmp_path / name) for name in ("one", "two")]  # both processes use it
        (cache,) = tmp_path.glob("dispatcher-worker-*/code")
        (place,) = [path for path in cache.iterdir() if path.is_dir()]
        for directory in (cache.parent, cache, place):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        helper = place / "files/0/helper.py"
        helper.chmod(0o600)
        helper.write_text("NAME = 'changed'")
        for name in ("one", "two"):
            (tmp_path / name).unlink()
        assert [project.result(run_id)[1:] for run_id in run_ids] == [[1, 1], [1, 1]]
        shutil.rmtree(place / "files/0/__pycache__", ignore_errors=True)
        for pid in worker.children:
            os.kill(pid, signal.SIGKILL)
        assert project.run("look")[1] == 1
        assert helper.read_text() == "NAME = 1"
        assert "was changed on disk (0/helper.py); unpacking it again" in worker.output
    finally:
        project.close()
    worker.end()
    assert list(tmp_path.glob("dispatcher-worker-*")) == []
