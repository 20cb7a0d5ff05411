"""The command as users run it: real processes, a real server, a real worker; and the laptop server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.records.redis import open_redis
from dispatcher.records.rejections import Rejected
from tests.integration.shells import COMMAND, Shell, read_terminal, worker_command
from tests.integration.workers import KEYS, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(server_url: str, tmp_path: Path) -> Shell:
    """A shell whose variables name the session's server."""
    return Shell(tmp_path, {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)})


@pytest.fixture
def worker(shell: Shell, start_worker: Callable[..., Worker]) -> Worker:
    """A worker started by the command."""
    return start_worker(command=worker_command("--backend", "local", "--concurrency", "2"))


def test_run_follows_prints_the_result_and_exits_as_the_run_ended(shell: Shell, worker: Worker) -> None:
    done = shell("run", "flows.py:greet", "-p", "name=Ada", "-p", "times=2")
    assert done.stdout.splitlines()[:2] == ["greeting Ada", "WARNING said by the logger"]
    assert json.loads(done.stdout.partition("logger\n")[2]) == ["hello Ada", "hello Ada"]
    assert re.search(r"queued\n.*claimed  \(by .*\n.*started\n.*exited → SUCCEEDED", done.stderr)

    assert json.loads(shell("run", "flows:greet", "-p", "name=7", "--quiet").stdout) == ["hello 7"]

    failed = shell("run", "flows.py:breaks", code=1)
    assert failed.stdout == ""
    assert 'in breaks\n    raise RuntimeError("no such luck")' in failed.stderr
    assert failed.stderr.splitlines()[-1] == "FAILED  RuntimeError: no such luck"

    assert "CRASHED  killed, exit code 9" in shell("run", "flows.py:dies", code=3).stderr
    assert "TIMED_OUT  deadline" in shell("run", "flows.py:sleeps", "--timeout", "0.3s", code=4).stderr


def test_run_as_json_is_one_document(shell: Shell, worker: Worker) -> None:
    document = shell.json("run", "flows.py:greet", "-p", "name=Ada", "--tag", "a", "--tags", "b,c", "--name", "first")
    assert document["result"] == ["hello Ada"]
    assert (document["state"], document["name"], document["flow"], document["tags"]) == (
        "SUCCEEDED",
        "first",
        "greet",
        ["a", "b", "c"],
    )
    assert document["outcome"]["cause"] is None
    assert shell.json("run", "flows.py:breaks", code=1)["outcome"]["cause"] == "user_error"


def test_a_pickled_result_is_never_opened(shell: Shell, worker: Worker) -> None:
    done = shell("run", "flows.py:odd")
    assert done.stdout == ""
    assert re.search(r"a sealed Python object of \d+ bytes; open it with Dispatcher\(\).get\(\"\w+\"\)", done.stderr)
    document = shell.json("run", "flows.py:odd")
    assert document["result"] is None
    assert document["outcome"]["result"]["codec"] == "pickle"


def test_a_run_is_found_shown_and_told_of(shell: Shell, worker: Worker) -> None:
    run_id = shell("submit", "flows.py:greet", "-p", "name=Grace", "--tag", "demo").stdout.strip()
    assert shell("logs", "-f", run_id).stdout.splitlines() == ["greeting Grace", "WARNING said by the logger"]
    assert [line["text"] for line in shell.lines("logs", run_id)] == ["greeting Grace", "said by the logger"]
    kinds = [event["kind"] for event in shell.lines("events", "--follow", run_id)]
    assert kinds == ["queued", "claimed", "provisioning", "pending", "started", "exited"]

    shown = shell("show", run_id[-6:]).stdout
    assert re.search(rf"run +{run_id}\nstate +SUCCEEDED\nflow +greet\nenvironment +LocalEnvironment\(\)", shown)
    assert shown.endswith('[\n  "hello Grace"\n]\n')
    document = shell.json("show", run_id)
    assert document["result"] == ["hello Grace"]
    assert [event["kind"] for event in document["events"]] == kinds

    listed = shell("list", "--tag", "demo", "--flow", "greet", "--since", "1h").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["RUN", run_id[-8:]]
    assert run_id in shell("list", "--full").stdout
    assert [run["id"] for run in shell.json("list", "--state", "succeeded", "--limit", "1")] == [run_id]
    for nothing in (["--tag", "other"], ["--flow", "other"], ["--state", "failed"], ["--since", "2999-01-01"]):
        assert shell.json("list", *nothing) == []
    assert "ended as SUCCEEDED" in shell("explain", run_id).stdout


def test_without_a_worker_the_command_says_so(shell: Shell) -> None:
    submitted = shell("submit", "flows.py:greet", "-p", "name=Ada", "--label", "gpu", "--label", "eu")
    run_id = submitted.stdout.strip()
    assert submitted.stderr.startswith("warning: No live worker serves backend 'local' with labels eu, gpu")
    assert "dispatcher worker --backend local --label eu --label gpu" in shell("explain", run_id).stdout
    status = shell.json("status")
    [queue] = status["queues"]
    assert (queue["name"], queue["waiting"], queue["workers"]) == ("local:eu+gpu", 1, [])
    assert status["workers"] == []
    assert "no workers" in shell("status").stdout

    assert shell("cancel", run_id[-8:]).stdout == f"{run_id}  CANCELLED\n"
    assert shell("cancel", run_id).stdout == f"{run_id}  CANCELLED already\n"
    assert shell.json("show", run_id)["state"] == "CANCELLED"


def test_status_counts_what_was_refused(shell: Shell, server_url: str) -> None:
    """Row 34 of the fault matrix: rejected, and counted."""
    records = open_redis(server_url)
    try:
        assert "refused" not in shell("status").stdout
        for subject in (Rejected.RUN, Rejected.REPORT, Rejected.REPORT):
            records.rejections.note(subject)
    finally:
        records.close()
    tallies = shell.json("status")["refused"]
    assert {subject: tally["count"] for subject, tally in tallies.items()} == {"run": 1, "report": 2}
    assert "refused    1 run, 2 reports; the last " in shell("status").stdout


def test_a_worker_serves_the_labels_it_was_given(shell: Shell, start_worker: Callable[..., Worker]) -> None:
    start_worker(command=worker_command("--backend", "local", "--label", "gpu", "--label", "eu", "--concurrency", "1"))
    [worker] = shell.json("status")["workers"]
    assert (worker["backends"], worker["labels"], worker["concurrency"]) == (["local"], ["eu", "gpu"], 1)

    assert shell.json("run", "flows:greet", "-p", "name=x", "--environment", "flows:gpu")["labels"] == ["gpu"]
    (shell.cwd / "env.json").write_text('{"type": "LocalEnvironment", "labels": ["eu"]}')
    assert shell.json("run", "flows:greet", "-p", "name=x", "--environment", "env.json")["queue"] == "local:eu"
    assert "local:gpu" in shell("status").stdout

    unlabelled = shell("submit", "flows:greet", "-p", "name=x").stdout.strip()
    assert shell.json("show", unlabelled)["state"] == "QUEUED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_waits_for_the_end(shell: Shell, worker: Worker, number: signal.Signals) -> None:
    process = shell.start("run", "flows.py:sleeps")
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` and terminals may: at once, so it counts as one
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors
    assert "cancelling; a second interrupt leaves the run alone" in errors
    assert errors.splitlines()[-1] == "CANCELLED"


def test_a_signal_cancels_a_run_that_waits(shell: Shell) -> None:
    process = shell.start("run", "flows.py:sleeps", "--label", "nobody")
    wait_until(lambda: shell.json("list"), "the run")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 5, errors


def test_a_second_signal_leaves_the_run(shell: Shell, start_worker: Callable[..., Worker]) -> None:
    start_worker(command=worker_command("--backend", "local"), timing={"stop_grace": 60.0})
    mark = shell.cwd / "enough"
    process = shell.start("run", "flows.py:stubborn", "-p", f"mark={mark}")
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "not yet\n"
    time.sleep(0.6)  # signals that come closer than that count as one
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    run_id = re.search(r"left run (\w+) alone", errors)
    assert run_id, errors
    assert shell.json("show", run_id[1])["state"] == "CANCELLING"
    mark.touch()
    wait_until(lambda: shell.json("show", run_id[1])["ended_at"], "its end")


def test_bad_input_is_one_line_and_status_two(shell: Shell, server_url: str) -> None:
    for arguments, message in (
        (["run", "flows.py:gret"], "has no 'gret'; it has greet, breaks, dies, sleeps, stubborn, odd"),
        (["run", "flows.py:greet"], "name"),
        (["run", "flows.py:greet", "-p", "nam=x"], "nam"),
        (["run", "flows.py:greet", "-p", "name=x", "-p", "times=two"], "'two' is not JSON; expected JSON for int"),
        (["run", "flows:greet", "-p", "name=x", "--environment", "none.json"], "can't be read"),
        (
            ["run", "flows:greet", "-p", "name=x", "--environment", "flows:gpu", "--label", "x"],
            "belong to the environm",
        ),
        (["show", "0123456789abcdefghjkmnpqrs"], "no run"),
        (["worker", "--backend", "locl"], "unknown backend 'locl'; known: "),
        (["submit", "flows:greet", "-p", "name=x", "--retries", "-1"], "an integer from 0 to 10,000"),
    ):
        done = shell(*arguments, code=2)
        assert done.stdout == ""
        assert done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    del shell.environ["DISPATCHER__SIGNING_KEYS"]
    assert "dispatcher keygen" in shell("submit", "flows:greet", "-p", "name=x", code=2).stderr
    assert "dispatcher keygen" in shell("worker", code=2).stderr
    assert shell.json("list") == []  # reading needs no key


def test_doctor_on_a_real_server(shell: Shell, worker: Worker) -> None:
    findings = {finding["subject"]: finding for finding in shell.json("doctor")}
    assert {"python", "packages", "settings", "keys", "server", "persistence", "memory", "clock", "workers"} <= set(
        findings
    )
    assert {finding["level"] for finding in findings.values()} == {"ok"}


def test_a_terminal_sees_the_run_live(shell: Shell, worker: Worker) -> None:
    master, slave = pty.openpty()
    shell.environ["TERM"] = "xterm-256color"
    process = shell.start("run", "flows.py:sleeps", "-p", "seconds=1.5", stdout=slave, stderr=slave)
    os.close(slave)
    screen = read_terminal(master)
    assert process.wait(30) == 0
    assert re.search(r"RUNNING.*started", screen), "state and phases, while it runs"
    assert "asleep" in screen
    assert screen.index("asleep") < screen.index('"awake"')
    assert "exited → SUCCEEDED" in screen


@pytest.fixture
def laptop() -> Iterator[Shell]:
    """A shell without a URL, with its own laptop server; its paths are short because a Unix socket is in one of
    them."""
    with tempfile.TemporaryDirectory(prefix="dsp-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        (home / "project").mkdir()
        (home / "run").mkdir(mode=0o700)
        environ = {"DISPATCHER__STATE_DIR": str(home / "state"), "XDG_RUNTIME_DIR": str(home / "run")}
        shell = Shell(home / "project", environ)
        try:
            yield shell
        finally:
            subprocess.run(
                [COMMAND, "down", "--force"], env=shell.environ, timeout=90, check=False, capture_output=True
            )


def test_the_laptop_server_by_command(laptop: Shell) -> None:
    assert "not running" in laptop("status").stdout
    assert laptop.json("status")["server"] is None
    assert {finding["level"] for finding in laptop.json("doctor")} == {"ok"}
    assert laptop("down").stdout == "the laptop server was not running\n"

    assert laptop("up").stdout.startswith("the laptop server is up: unix://")
    assert laptop.json("up")["stays"] is True
    (laptop.cwd / "workers").mkdir()  # a user's own package of that name must not take our worker's place
    (laptop.cwd / "workers" / "__init__.py").write_text("raise SystemExit('not ours')")
    done = laptop("run", "flows:greet", "-p", "name=Ada", "--label", "any")
    assert '"hello Ada"' in done.stdout
    status = laptop.json("status")
    assert status["laptop"]["stays"] is True
    assert len(status["workers"]) == 1
    assert "stays      until `dispatcher down`" in laptop("status").stdout
    assert {finding["level"] for finding in laptop.json("doctor")} == {"ok"}

    assert laptop("down").stdout == "the laptop server is down\n"
    assert [run["state"] for run in laptop.json("list")] == ["SUCCEEDED"], "found after its server ended"


def test_a_foreground_worker_on_the_laptop_server(laptop: Shell) -> None:
    laptop("up")
    process = laptop.start("worker", "--label", "gpu", stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "is ready" in line:
                break
        [worker] = laptop.json("status")["workers"]
        assert (worker["labels"], worker["every_label"]) == (["gpu"], False)
        assert worker["scope"]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
