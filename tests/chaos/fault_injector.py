"""Fault injection of a soak: every few seconds something is killed, frozen, cut off, slowed down or removed.

Faults are drawn by a seed, each kind before any comes again, and noted with the time at which they were over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import redis

from dispatcher.broker.doorbell import envelope
from dispatcher.records.query import Query
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import INSTANCE
from dispatcher.runs.change import ring_for
from tests.chaos.conftest import ChaosServer
from tests.chaos.proxy import Proxy
from tests.chaos.worker_group import TIMING, WorkerGroup

#: Seconds between the beginnings of two faults.
EVERY = (1.0, 5.0)

#: What comes twice as often as the rest.
OFTEN = ("worker killed", "server killed")


class Killed(Protocol):
    """A process that can be killed and restarts by itself."""

    def kill(self) -> None:
        """Kill it with SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One act. Times are in seconds since the epoch; ``healed`` is when it was over, ``target`` what it hit."""

    kind: str
    at: float
    healed: float
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The targets of a fault injector."""

    server: ChaosServer
    url: str
    group: WorkerGroup
    proxies: Sequence[Proxy]
    subscriber: Killed
    service: Path


class FaultInjector:
    """Acts on its own thread, between :meth:`start` and :meth:`stop`.

    Args:
        targets: what it may touch.
        log: file for its faults, one a line.
        seed: of what it draws.
    """

    def __init__(self, targets: Targets, log: Path, *, seed: int) -> None:
        self.faults: list[Fault] = []
        self.doubled = 0  #: doorbells rung beside those of the engine
        self.emptied = 0  #: doorbells that were taken out of their queue
        self.error: BaseException | None = None
        self._targets = targets
        self._log = log
        self._rng = random.Random(f"{seed}:faults")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-injector")
        self._acts: dict[str, Callable[[], str]] = {
            "worker killed": self._kill_worker,
            "worker frozen": self._freeze_worker,
            "worker told to stop": self._stop_worker,
            "pool process killed": self._kill_pool_process,
            "container killed": self._kill_container,
            "subscriber killed": self._kill_subscriber,
            "server killed": self._kill_server,
            "clients killed": self._kill_clients,
            "clients paused": self._pause_clients,
            "connections cut": self._cut,
            "connections refused": self._refuse,
            "black hole": self._swallow,
            "slow network": self._slow_down,
            "reply lost": self._lose_reply,
            "scripts flushed": self._flush_scripts,
            "queues emptied": self._empty_queues,
            "doorbells doubled": self._double_doorbells,
            "memory limit": self._limit_memory,
        }

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No further fault; all is healed."""
        self._stopped.set()
        self._thread.join()
        for proxy in self._targets.proxies:
            proxy.heal()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        deck: list[str] = []
        try:
            while not self._stopped.is_set():
                if not deck:
                    deck = self._rng.sample(kinds := [*self._acts, *OFTEN], len(kinds))
                due = time.monotonic() + self._rng.uniform(*EVERY)
                self._act(deck.pop())
                self._stopped.wait(max(due - time.monotonic(), 0.0))
        except BaseException as error:
            self.error = error

    def _act(self, kind: str) -> None:
        begun = time.time()
        with suppress(ProcessLookupError, IndexError):  # what it was to hit isn't there just now
            target = self._acts[kind]()
            fault = Fault(kind=kind, at=begun, healed=time.time(), target=target)
            self.faults.append(fault)
            with self._log.open("a") as file:
                file.write(json.dumps(asdict(fault)) + "\n")

    def _worker(self) -> Any:
        return self._rng.choice(list(self._targets.group.workers))

    def _kill_worker(self) -> str:
        worker = self._worker()
        worker.send(signal.SIGKILL)
        return str(worker.process.pid)

    def _freeze_worker(self) -> str:
        """A machine that stands still: for a moment, or for longer than a lease."""
        worker = self._worker()
        pids = [worker.process.pid, *worker.children]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            time.sleep(self._rng.choice([0.5, TIMING["lease"] + 4 * TIMING["lease_tick"]]))
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)
        return str(worker.process.pid)

    def _stop_worker(self) -> str:
        worker = self._worker()
        worker.send(signal.SIGTERM)
        return str(worker.process.pid)

    def _kill_pool_process(self) -> str:
        pid = self._rng.choice(self._worker().children)
        os.kill(pid, signal.SIGKILL)
        return str(pid)

    def _kill_container(self) -> str:
        for file in self._rng.sample(files := sorted(self._targets.service.glob("*.json")), len(files)):
            with suppress(OSError, ValueError):
                container = json.loads(file.read_text())
                if container["pid"] and container["exit_code"] is None:
                    os.killpg(container["pid"], signal.SIGKILL)
                    return file.stem
        raise IndexError("no container")

    def _kill_subscriber(self) -> str:
        self._targets.subscriber.kill()
        return ""

    def _kill_server(self) -> str:
        away = self._rng.uniform(0.2, 3.0)
        self._targets.server.kill()
        time.sleep(away)
        self._targets.server.start()
        return f"{away:.1f} s"

    def _kill_clients(self) -> str:
        with self._server() as server:
            killed = [server.client_kill_filter(_type=kind) for kind in ("normal", "pubsub")]
        return f"{sum(killed)} connections"

    def _pause_clients(self) -> str:
        seconds = self._rng.uniform(0.5, 2.5)
        with self._server() as server:
            server.client_pause(round(seconds * 1000))
        time.sleep(seconds)
        return f"{seconds:.1f} s"

    def _cut(self) -> str:
        for proxy in self._ways():
            proxy.cut()
        return ""

    def _refuse(self) -> str:
        return self._for_a_while(lambda proxy: proxy.cut(refuse=True), 3.0)

    def _swallow(self) -> str:
        return self._for_a_while(lambda proxy: proxy.swallow(), 4.0)

    def _slow_down(self) -> str:
        return self._for_a_while(lambda proxy: proxy.slow_down(self._rng.uniform(0.02, 0.2)), 4.0)

    def _lose_reply(self) -> str:
        """A script runs and nobody hears of it; every second time its caller can't ask again for a while."""
        ways = self._ways()
        before = {way: way.lost for way in ways}
        for way in ways:
            way.lose_reply(b"FCALL", nth=self._rng.randint(1, 6))
        refuse = self._rng.random() < 0.5
        end = time.monotonic() + 2.0
        while (left := [way for way in ways if way.lost == before[way]]) and time.monotonic() < end:
            time.sleep(0.005)
        if refuse:
            for way in ways:
                way.cut(refuse=True)
            time.sleep(2.0)
        for way in ways:
            way.heal()
        return f"{len(ways) - len(left)} replies{', then refused' * refuse}"

    def _for_a_while(self, act: Callable[[Proxy], None], most: float) -> str:
        seconds = self._rng.uniform(0.5, most)
        ways = self._ways()
        for proxy in ways:
            act(proxy)
        time.sleep(seconds)
        for proxy in ways:
            proxy.heal()
        return f"{len(ways)} ways, {seconds:.1f} s"

    def _ways(self) -> list[Proxy]:
        """The workers' way to the server, the clients', or both."""
        ways = list(self._targets.proxies)
        return self._rng.choice([ways, *([way] for way in ways)])

    def _flush_scripts(self) -> str:
        with self._server() as server:
            server.function_flush("SYNC")
        return ""

    def _empty_queues(self) -> str:
        with self._server() as server:
            emptied = sum(server.llen(key) for key in self._queues(server))
            for key in self._queues(server):
                server.delete(key)
        self.emptied += emptied
        return f"{emptied} doorbells"

    def _double_doorbells(self) -> str:
        """The newest runs, waiting, running or over, are rung for twice at once."""
        records = open_redis(self._targets.url)
        try:
            newest = list(records.runs.find(Query(), limit=20))
        finally:
            records.close()
        with self._server() as server:
            instance = server.get(INSTANCE).decode()
            for record in newest:
                ring = ring_for(record)
                server.lpush(f"{instance}:{ring.route.queue}", envelope(ring), envelope(ring))
        self.doubled += 2 * len(newest)
        return f"{2 * len(newest)} doorbells"

    def _queues(self, server: Any) -> list[str]:
        instance = server.get(INSTANCE).decode()
        return [f"{instance}:{backend}" for backend in ("local", "remote", "fake")]

    def _limit_memory(self) -> str:
        seconds = self._rng.uniform(0.5, 2.0)
        with self._server() as server:
            server.config_set("maxmemory", 1)
        time.sleep(seconds)
        with self._server() as server:
            server.config_set("maxmemory", 0)
        return f"{seconds:.1f} s"

    @contextmanager
    def _server(self) -> Iterator[Any]:
        with redis.Redis.from_url(self._targets.url, socket_timeout=10) as server:
            yield server


def _signal(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
