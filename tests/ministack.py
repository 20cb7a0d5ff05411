"""MiniStack, a server that speaks the protocols of AWS, as a process of its own. See https://pypi.org/project/ministack/.

It needs other releases of the SDK than we do: it is installed into an environment of its own, once per checkout.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.testing.waiting import wait_until
from tests.conftest import PYTHON, free_port

_RELEASE = "ministack==1.5.33"
_PLACE = Path(PYTHON).parents[1] / "ministack"

#: Credentials that it knows if it checks any.
ACCESS_KEY, SECRET_KEY = "test", "test"


@contextmanager
def serving(directory: Path, **variables: str) -> Iterator[str]:
    """Start a server, and yield its address.

    Args:
        directory: for its log and its files.
        variables: of its process, such as ``AUTH="true"``, with which it checks credentials and policies.
    """
    port = free_port()
    environ = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "TMPDIR": str(directory), "HOME": str(directory)}
    with (directory / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [str(_installed()), "-m", "ministack"],
            env={**os.environ, **environ, **variables}, stdout=log, stderr=subprocess.STDOUT, cwd=directory,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or _answers(address), "the server of AWS' protocols", timeout=60)
        assert process.poll() is None, (directory / "ministack.log").read_text()
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_ministack/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _installed() -> Path:
    """Return the interpreter of its environment, which is made if it isn't there."""
    python, done = _PLACE / "bin" / "python", _PLACE / f".{_RELEASE}"
    _PLACE.parent.mkdir(exist_ok=True)
    with (_PLACE.parent / "ministack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            uv = str(Path(PYTHON).with_name("uv"))
            for command in (["venv", "--clear", "--python", sys.executable, str(_PLACE)],
                            ["pip", "install", "--python", str(python), _RELEASE]):  # fmt: skip
                made = subprocess.run([uv, *command], capture_output=True, text=True, check=False, timeout=300)
                assert made.returncode == 0, made.stderr
            done.touch()
    return python
