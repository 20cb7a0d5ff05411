"""Workers that are replaced as they die, as a service manager would."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.integration.workers import QUICK, Worker

#: Timings of production divided by 15, and what they leave at seconds.
TIMING = {**QUICK, "poll": 2 / 15, "queue_tick": 0.2}


class WorkerGroup:
    """A fixed number of workers.

    Args:
        url: their server.
        folder: for their output.
        count: how many.
        environ: variables of theirs.
        worker: settings of theirs.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        count: int = 2,
        timing: Mapping[str, float] | None = None,
        environ: Mapping[str, str] | None = None,
        **worker: Any,
    ) -> None:
        self._url = url
        self._folder = folder
        self._given: dict[str, Any] = {"timing": {**TIMING, **(timing or {})}, "environ": environ, **worker}
        self._count = count
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="worker-group")
        self.workers: list[Worker] = []
        self.pids: set[int] = set()
        self.deaths = 0
        self._ended: list[Worker] = []

    def __enter__(self) -> WorkerGroup:
        for _ in range(self._count):
            self._add()
        for worker in self.workers:
            worker.says("is ready", timeout=120)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for worker in self.workers:
            worker.end()

    @property
    def output(self) -> str:
        """The output of all workers."""
        return "".join(f"--- {worker.process.pid}\n{worker.output}" for worker in [*self._ended, *self.workers])

    def _add(self) -> None:
        worker = Worker(self._url, self._folder, **self._given)
        self.pids.add(worker.process.pid)
        self.workers.append(worker)

    def _guard(self) -> None:
        while not self._stopped.wait(0.1):
            for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
                self.deaths += 1
                self.workers.remove(worker)
                self._ended.append(worker)
                self._add()
