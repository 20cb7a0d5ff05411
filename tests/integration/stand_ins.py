"""Stand-ins for tests of the client: a worker in a thread, and a proxy that drops everything."""

from __future__ import annotations

import socket
import threading

from dispatcher.connect import connect
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.in_process import run_attempt
from dispatcher.runs import indexes
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings


class ThreadWorker:
    """Runs the waiting runs of a queue in a thread, one after the other."""

    def __init__(self, settings: Settings, queue: str = "local") -> None:
        self._settings = settings
        self._queue = queue
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> ThreadWorker:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        records, keys = connect(self._settings), KeyRing.from_settings(self._settings)
        while not self._stop.wait(0.002):
            for run_id, _ in records.runs.members(indexes.waiting(self._queue)):
                record, now = records.runs.get(run_id)
                run_attempt(
                    records, keys, self._settings, Snapshot(record, now), owner="thread", holder=f"thread-{run_id}"
                )
        records.close()


class BlackHole:
    """A TCP proxy for the server's socket, which can drop all data."""

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("unix://").partition("?")[0]
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self.swallow = False
        self._open: list[socket.socket] = []

    def __enter__(self) -> BlackHole:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in (self._listening, *self._open):
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._path)
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.swallow:
                    target.sendall(data)
        except OSError:
            pass
