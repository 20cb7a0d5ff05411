"""A process of a soak that restarts whenever it is killed."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.workers import ROOT


class RestartingProcess:
    """A process that is started again whenever it ends, until it is told to stop."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environ = environ
        self._log = log
        self._stopped = threading.Event()
        self._process = self._started()
        self._thread = threading.Thread(target=self._keep, name="standing")
        self._thread.start()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, and don't restart it."""
        self._stopped.set()
        self._thread.join()
        self._process.kill()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, env=dict(self._environ), cwd=ROOT)

    def _keep(self) -> None:
        while not self._stopped.wait(0.1):
            if self._process.poll() is not None:
                self._process = self._started()
