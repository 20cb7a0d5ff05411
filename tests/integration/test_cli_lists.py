"""Lists of runs, short ids and ends of logs, as users see them: real processes, a real server, a real worker."""

from __future__ import annotations

import json
import os
import pty
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.shells import Shell, read_terminal, worker_command
from tests.integration.workers import KEYS, Worker

pytestmark = pytest.mark.integration


@pytest.fixture
def shell(server_url: str, tmp_path: Path) -> Shell:
    """A shell whose variables name the session's server."""
    return Shell(tmp_path, {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)})


@pytest.fixture
def worker(shell: Shell, start_worker: Callable[..., Worker]) -> Worker:
    """A worker started by the command."""
    return start_worker(command=worker_command("--backend", "local", "--concurrency", "2"))


def test_the_newest_runs_and_the_last_lines(shell: Shell, worker: Worker) -> None:
    first, second = (shell("submit", "flows.py:greet", "-p", f"name={name}").stdout.strip() for name in ("Ada", "Bob"))
    assert shell("logs", "-f", "@last").stdout.splitlines()[0] == "greeting Bob"
    assert shell("logs", "-f", "@last-1").stdout.splitlines()[0] == "greeting Ada"
    assert shell.json("show", "@last-1")["id"] == first
    assert "only 2 runs are kept" in shell("show", "@last-2", code=2).stderr
    assert shell("logs", "--tail", "1", second).stdout == "WARNING said by the logger\n"
    assert shell("logs", "-f", "-n", "1", "@last").stdout == "WARNING said by the logger\n"
    assert shell("logs", "--since", "2999-01-01", "@last").stdout == ""
    cut = shell("list", "--limit", "1")
    assert len(cut.stdout.splitlines()) == 2
    assert cut.stderr == "1 of 2 runs; --limit, --all\n"
    assert shell("list", "--limit", "1", "--flow", "greet").stderr == "1 of 2 runs; --limit, --all\n"
    assert shell("list", "--limit", "1", "--since", "1h").stderr == "1 of more runs; --limit, --all\n"
    assert len(shell("list", "--all", "--limit", "1").stdout.splitlines()) == 3


def test_a_narrow_terminal_keeps_room_for_the_reason(shell: Shell) -> None:
    (shell.cwd / "long.py").write_text(
        "from dispatcher import flow\n\n@flow(name='nightly-sales-report-of-all-shops-in-europe')\ndef f(): ...\n"
    )
    shell("submit", "long.py:f", "--label", "gpu")
    master, slave = pty.openpty()
    shell.environ |= {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = shell.start("list", stdout=slave, stderr=slave)
    os.close(slave)
    lines = re.sub(r"\x1b\[[0-9;]*m|\r", "", read_terminal(master)).splitlines()
    assert process.wait(30) == 0
    assert max(map(len, lines)) == 80
    [head, line] = lines
    assert re.search(r"  nigh\S*…\S*rope  ", line), "the name is cut in the middle"
    assert line[head.index("WHY") :].startswith("no live worker serves")
    assert 80 - head.index("WHY") >= 30
