"""The process of a run's Dask scheduler, seen from the flow's process that starts it.

The program is :mod:`dispatcher.executors.dask_cluster.scheduler`. Used by
:mod:`dispatcher.executors.dask_cluster.cluster`; knows no Dask.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_PROGRAM = "dispatcher.executors.dask_cluster.scheduler"
_CLOSE_TIMEOUT = 3.0  # seconds for the scheduler to close its workers' connections


class SchedulerProcess:
    """A scheduler, from its start to its end.

    Args:
        arguments: of the program.
        environ: its variables.
        on_message: called with each of its messages, see :mod:`dispatcher.executors.dask_cluster.messages`.
        on_output: called with each line that it writes otherwise, such as a traceback.
        on_end: called with its exit code, or the negative number of the signal that killed it. Not called after
            :meth:`close`.

    All are called in a thread of their own. To be made in the main thread: the process dies with that thread.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        on_message: Callable[[dict[str, Any]], None],
        on_output: Callable[[str], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._on_end = on_end
        self._closed = False
        messages, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM, *arguments, f"--messages={theirs}", f"--parent={os.getpid()}"],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
            )
        except BaseException:
            os.close(messages)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdout is not None
        readers = {
            messages: _Lines(lambda line: on_message(json.loads(line))),
            os.dup(self._process.stdout.fileno()): _Lines(lambda line: on_output(line.decode(errors="replace"))),
        }
        self._process.stdout.close()
        self._thread = threading.Thread(target=self._read, args=(readers,), name="dispatcher-scheduler", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """True if the process has ended."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def close(self) -> None:
        """End the scheduler, which closes its workers, and wait for it a few seconds. Safe to call again."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_CLOSE_TIMEOUT)

    def _read(self, readers: dict[int, _Lines]) -> None:
        with selectors.DefaultSelector() as selector:
            for descriptor, lines in readers.items():
                selector.register(descriptor, selectors.EVENT_READ, lines)
            while selector.get_map():
                for key, _ in selector.select():
                    if data := os.read(key.fd, 2**16):
                        key.data.feed(data)
                    else:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        code = self._process.wait()
        if not self._closed:
            self._on_end(code)


class _Lines:
    """Splits bytes into lines."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)
