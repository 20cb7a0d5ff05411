"""The workers of a run's own Dask cluster: processes that a test starts and ends by a runner's reports.

Plays the part of the supervisor, which creates and deletes pods.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from dispatcher.executors.dask_cluster.certificates import make_certificate
from dispatcher.executors.dask_cluster.cluster import PORT
from dispatcher.executors.dask_cluster.tls import Tls
from dispatcher.runs.cluster import WorkerReport
from tests.conftest import PYTHON, free_port

_ROOT = str(Path(__file__).parent.parent)


class Workers:
    """Starts a process for each name that is wanted, and kills those that aren't wanted and never joined.

    Args:
        directory: an empty directory, for certificates, temporary files and logs.
        options: of each worker, in addition to the usual ones.
        environ: variables of each worker, in addition to this process's.
    """

    def __init__(self, directory: Path, *options: str, environ: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o2777)  # as an emptyDir of a pod with fsGroup
        self.port = free_port()
        self.tls = certificate_files(directory)
        #: Variables of the flow's container.
        self.variables = {
            PORT: str(self.port),
            "DISPATCHER__RUN__TLS_CERT": self.tls.cert,
            "DISPATCHER__RUN__TLS_KEY": self.tls.key,
        }
        self.reports: list[WorkerReport] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.paused = False
        self._options = options
        self._environ = environ or {}
        self._joined: set[str] = set()
        self._lock = threading.Lock()
        self._ended = False

    @property
    def latest(self) -> WorkerReport:
        """The latest report."""
        return self.reports[-1] if self.reports else WorkerReport()

    @property
    def connected(self) -> tuple[str, ...]:
        """The workers that are connected now."""
        return self.latest.connected

    def follow(self, report: WorkerReport) -> None:
        """Start and kill workers as a report wants it."""
        with self._lock:
            self.reports.append(report)
            self._joined.update(report.connected)
            if self._ended or self.paused:
                return
            for name in report.wanted:
                if name not in self.processes:
                    self.processes[name] = self._start(name)
            for name, process in self.processes.items():
                if name not in report.wanted and name not in self._joined:
                    process.kill()

    def is_alive(self, name: str) -> bool:
        """Return True if the worker's process lives."""
        return self.processes[name].poll() is None

    def output(self, name: str) -> str:
        """Return the lines that a worker has written so far."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def end(self) -> None:
        """Kill all workers, at the end of a test."""
        with self._lock:
            self._ended = True
        for name, process in self.processes.items():
            process.kill()
            process.wait()
            print(f"--- {name}\n{self.output(name)}")  # noqa: T201 - pytest shows it if a test failed

    def start(self, name: str, *options: str, tls: Tls | None = None) -> subprocess.Popen[bytes]:
        """Start a worker that nobody has asked for; with another certificate, if one is given."""
        self.processes[name] = self._start(name, *options, tls=tls)
        return self.processes[name]

    def _start(self, name: str, *options: str, tls: Tls | None = None) -> subprocess.Popen[bytes]:
        command = [
            PYTHON, "-P", "-m", "distributed.cli.dask_worker", f"tls://127.0.0.1:{self.port}", "--name", name,
            "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--no-nanny", "--death-timeout", "60",
            "--nthreads", "1", "--memory-limit", "1GiB", "--local-directory", str(self.temporary),
            "--preload", "dispatcher.executors.dask_cluster.worker_life", *self._options, *options,
        ]  # fmt: skip
        variables = {
            **os.environ, "PYTHONPATH": _ROOT, "TMPDIR": str(self.temporary), **(tls or self.tls).variables(),
            **self._environ,
        }  # fmt: skip
        with (self.directory / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=self.directory, env=variables, stdout=log, stderr=log)


def certificate_files(directory: Path, name: str = "cluster") -> Tls:
    """Write a new certificate and its key into files."""
    made = make_certificate()
    tls = Tls(cert=str(directory / f"{name}.crt"), key=str(directory / f"{name}.pem"))
    Path(tls.cert).write_text(made.cert)
    Path(tls.key).touch(0o600)
    Path(tls.key).write_text(made.key)
    return tls
