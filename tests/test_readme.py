"""The README's commands do all the set-up: in a fresh clone, a fresh environment and an empty home.

Slow, as it installs from the package index and runs the unit tests once more; opted into with ``FRESH_CLONE=1``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
WITHIN = 1100
MARK = "not run: tests/test_readme.py runs these in a fresh clone"

pytestmark = [
    pytest.mark.fresh,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not os.environ.get("FRESH_CLONE"), reason="slow: set FRESH_CLONE=1; .ci/run does"),
]


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """A directory that stands for a fresh machine: a clone, and a home with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="dsp-fresh-") as directory:
        home = Path(directory)
        (home / "run").mkdir(mode=0o700)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(home / "clone")], check=True)
        yield home


def _environment(home: Path) -> dict[str, str]:
    """That of a person who just logged in; the package index and its cache stay this machine's."""
    environment = Path(sys.prefix, "bin")
    path = [part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != environment]
    variables = {
        name: value
        for name, value in os.environ.items()
        if re.match(r"PIP_|SSL_|REQUESTS_|LANG|LC_|TZ$|CI$|(HTTPS?|NO)_PROXY$", name, re.IGNORECASE)
    }
    cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
    return {
        **variables,
        "PATH": os.pathsep.join(path),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PIP_CACHE_DIR": cache,
        "ARGS": "tests/unit",  # what is tested here is the set-up; the whole suite runs around this test
    }


def _commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for block in blocks("README.md", text) if block.mark == MARK for line in block.code.splitlines()]


def _left_behind(home: Path) -> list[str]:
    """Command lines of processes that live in this home."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={home}".encode() in (process / "environ").read_bytes().split(b"\0"):
                command_lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or isn't ours
            continue
    return command_lines


def _run(command: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit status and output; in a session of its own, which is ended whole when its time is over."""
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            output += f"\n{command} took longer than {WITHIN} s"
    return process.returncode, output


def test_the_readme_names_two_commands() -> None:
    assert [command.split("#")[0].strip() for command in _commands()] == ["make demo", "make test"]


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_a_command_does_all_the_set_up(machine: Path, command: str) -> None:
    environment = _environment(machine)

    status, output = _run(command, machine / "clone", environment)

    sys.stdout.write(output)
    assert status == 0, output[-8000:]
    wait_until(lambda: not _left_behind(machine), f"everything that {command} started to end", timeout=15)
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=machine / "clone", capture_output=True, text=True, check=True
    )
    assert changed.stdout == "", "the command left files that git doesn't ignore"


def test_the_wheel_holds_what_is_no_python(machine: Path) -> None:
    clone = machine / "clone"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(machine), str(clone)],
        env=_environment(machine),
        check=True,
        timeout=300,
    )

    [wheel] = machine.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = [path for top in ("dispatcher", "backends", "workers") for path in (clone / top).rglob("*.lua")]
    assert "dispatcher/py.typed" in names
    assert len(scripts) > 0
    assert {str(path.relative_to(clone)) for path in scripts} <= names
    assert not [name for name in names if name.split("/")[0] in {"tests", "tools", "examples", "benchmarks"}]
