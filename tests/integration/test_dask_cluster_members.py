"""The members of a run's own Dask cluster: who may join, what they tell the run and how they end. All are processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import distributed
import psutil  # type: ignore[import-untyped]  # Dask brings it
import pytest

from dispatcher.errors import ExecutorUnavailable, Permanent
from dispatcher.executors import DaskExecutor
from dispatcher.runs.states import Cause
from tests.conftest import PYTHON
from tests.dask_workers import certificate_files
from tests.integration.own_cluster import opened, own_cluster
from tests.integration.workers import is_alive
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def say(text: str) -> None:
    print(text)  # noqa: T201 - what it prints is what is tested
    logging.getLogger("shop").info("%s, logged", text)


def sleep_on(path: str) -> None:
    """Go on for ever, whatever is asked."""
    Path(path).touch()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def test_the_scheduler_speaks_tls_alone_to_members_alone(tmp_path: Path) -> None:
    with opened(tmp_path, 0, 1) as own:
        own.cluster.wait()
        port = own.workers.port
        with pytest.raises(OSError, match=r"\S"):
            asyncio.run(_connect(f"tcp://127.0.0.1:{port}", distributed.Security()))
        stranger = certificate_files(tmp_path, "stranger").security()
        with pytest.raises(OSError, match=r"\S"):
            asyncio.run(_connect(own.cluster.address, stranger))
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.settimeout(10)
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = plain.recv(100)
            assert b"HTTP" not in answer
        asyncio.run(_connect(own.cluster.address, own.workers.tls.security()))


async def _connect(address: str, security: Any) -> None:
    async with distributed.Client(address, security=security, asynchronous=True, timeout=5) as client:
        assert client.scheduler_info()["type"] == "Scheduler"


def test_a_worker_with_another_certificate_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, 1, 1) as own:
        own.workers.paused = True
        wait_until(lambda: own.workers.reports, "the scheduler", timeout=60)
        stranger = own.workers.start("w1", "--death-timeout", "5", tls=certificate_files(tmp_path, "stranger"))
        assert stranger.wait(60) != 0
        assert own.workers.connected == ()


def test_a_worker_that_is_not_wanted_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, 0, 1) as own:
        own.cluster.wait()
        assert own.workers.start("w7").wait(60) != 0
        assert "worker 'w7' isn't wanted, or no longer" in own.workers.output("w7")
        assert own.workers.connected == ()


def test_no_client_runs_functions_on_the_scheduler(tmp_path: Path) -> None:
    with own_cluster(tmp_path, 0, 1) as own:
        client = own.executor._client
        with pytest.raises(ValueError, match="'run_function' handler has been explicitly disallowed"):
            client.run_on_scheduler(os.getpid)
        with pytest.raises(ValueError, match="'feed' handler has been explicitly disallowed"):
            client.sync(client.scheduler.feed)


def test_the_pages_listen_on_loopback(tmp_path: Path) -> None:
    with opened(tmp_path, 1, 1) as own:
        own.cluster.wait()
        with urllib.request.urlopen(f"http://127.0.0.1:{own.workers.port + 1}/info/main/workers.html") as page:
            assert "w1" in page.read().decode()
        listening = [
            connection.laddr
            for connection in psutil.Process(own.cluster.scheduler_pid).net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port != own.workers.port
        ]
        assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_worker_with_another_release_of_dask_ends_the_start(tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "import distributed.versions as versions\n"
        "def info(names, made=versions.get_package_info):\n"
        "    return {**made(names), 'dask': '2020.1.0', 'python': '3.9.1.final.0'}\n"
        "versions.get_package_info = info\n"
    )
    with opened(tmp_path, 1, 1, "--preload", str(other)) as own:
        with pytest.raises(Permanent) as raised:
            own.cluster.wait()
        dask = distributed.versions.get_versions()["packages"]["dask"]
        assert raised.value.cause is Cause.CONFIG_ERROR
        assert f"dask 2020.1.0 instead of {dask}" in str(raised.value)
        assert "Dask worker w1 has other versions" in str(raised.value)
        assert "Python 3.9.1 instead of 3." in str(raised.value)
        assert own.workers.processes["w1"].wait(30) != 0


def test_what_tasks_print_and_log_has_the_name_of_the_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with own_cluster(tmp_path) as own:
        own.executor.submit(say, "of the flow").result()
        own.executor._client.submit(say, "of Dask").result()
        wait_until(lambda: "of Dask" in caplog.text, "the line of Dask's own task")
    printed = capsys.readouterr().out
    for text in ("of the flow", "of Dask"):
        assert printed.count(f"[w1] {text}\n") == 1
        assert [record.name for record in caplog.records if record.getMessage() == f"[w1] {text}, logged"] == ["shop"]


@pytest.mark.parametrize("wanted", [False, True], ids=["without", "with"])
def test_scheduler_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: bool) -> None:
    caplog.set_level(logging.INFO)
    with own_cluster(tmp_path, spec={"scheduler_logs": wanted}) as own:
        own.workers.processes["w1"].kill()
        own.wait_for("w2")
    of_scheduler = [record for record in caplog.records if record.name == "distributed.scheduler"]
    assert any("Dask worker w1 was lost" in record.getMessage() for record in of_scheduler)
    assert any(record.levelno == logging.INFO for record in of_scheduler) is wanted
    assert any("Register worker" in record.getMessage() for record in of_scheduler) is wanted


def test_a_flow_can_connect_a_client_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path) as own:
        own.cluster.wait()
        with distributed.Client(own.cluster.address, set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_a_flow_can_have_a_plain_local_cluster(tmp_path: Path) -> None:
    with (
        own_cluster(tmp_path),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        assert local.scheduler_address.startswith("tcp://")
        assert client.submit(sum, [1, 2]).result() == 3
        with DaskExecutor(cluster_kwargs={"n_workers": 1, "threads_per_worker": 1}).start():
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Dask leaves sockets behind
def test_a_killed_scheduler_is_reported_and_waited_for_by_nobody(tmp_path: Path) -> None:
    with opened(tmp_path) as own:
        own.cluster.wait()
        with own.executor.start():
            future = own.executor.submit(sleep_on, str(tmp_path / "runs"))
            wait_until((tmp_path / "runs").exists, "the task", timeout=60)
            os.kill(own.cluster.scheduler_pid, signal.SIGKILL)
            with pytest.raises(Exception, match=r"(?i)cancelled|closed|lost"):
                future.result()
            wait_until(lambda: own.ends, "the report of its end", timeout=5)
            at = time.monotonic()
        assert time.monotonic() - at < 5
        assert own.ends[0].code == -signal.SIGKILL
        assert own.ends[0].started
        wait_until(lambda: not own.workers.is_alive("w1"), "the end of its worker, whose task goes on", timeout=60)
        assert own.workers.processes["w1"].returncode == 1
    gc.collect()  # here, where the warning is expected


def test_a_scheduler_that_cannot_start_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with opened(tmp_path, variables={"DISPATCHER__RUN__TLS_KEY": str(tmp_path / "missing")}) as own:
        with pytest.raises(Permanent) as raised:
            own.cluster.wait()
        assert raised.value.cause is Cause.START_FAILED
        wait_until(lambda: own.ends, "the report of its end", timeout=5)
        assert not own.ends[0].started
        assert any("No such file" in line for line in own.ends[0].lines)


def test_the_scheduler_dies_with_the_process_of_the_flow(tmp_path: Path) -> None:
    tls = certificate_files(tmp_path)
    program = tmp_path / "flow.py"
    program.write_text(
        "import os, time\n"
        "from dispatcher.environments.cluster import ClusterSpec\n"
        "from dispatcher.executors.dask_cluster.cluster import open_cluster\n"
        "spec = ClusterSpec(min_workers=0, max_workers=1, work_stealing=None, scheduler_logs=False)\n"
        "with open_cluster(spec, os.environ, on_report=lambda _: None, on_end=print) as cluster:\n"
        "    cluster.wait()\n"
        "    print(cluster.scheduler_pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    from tests.conftest import free_port

    variables = {
        "DISPATCHER__RUN__TLS_CERT": tls.cert, "DISPATCHER__RUN__TLS_KEY": tls.key,
        "DISPATCHER__RUN__SCHEDULER_PORT": str(free_port()),
    }  # fmt: skip
    flow = subprocess.Popen([PYTHON, str(program)], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    with flow, flow.stdout:
        pid = int(flow.stdout.readline())
        flow.kill()
    wait_until(lambda: not is_alive(pid), "the scheduler's end", timeout=10)


def test_a_cluster_without_certificate_is_refused(tmp_path: Path) -> None:
    from dispatcher.errors import InvalidSettings

    with (
        pytest.raises(InvalidSettings, match="DISPATCHER__RUN__TLS_CERT: not set"),
        opened(tmp_path, variables={"DISPATCHER__RUN__TLS_CERT": ""}),
    ):
        pass


def test_an_executor_without_its_scheduler_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, 0, 1) as own:
        own.cluster.wait()
        own.cluster.close()
        own.executor.connect_timeout = 2
        with pytest.raises(ExecutorUnavailable), own.executor.start():
            pass
