"""A pseudo terminal that a test opens for one process, and closes as if its window were closed."""

from __future__ import annotations

import os
import pty
import select

_ENTER = """
import os, sys
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)  # the first one that a session's leader opens is its own
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Terminal:
    """A pseudo terminal."""

    def __init__(self) -> None:
        self._output = b""
        self._master, slave = pty.openpty()
        self._name = os.ttyname(slave)
        os.close(slave)

    def command(self, *command: str) -> tuple[str, ...]:
        """Return the arguments of Python for a process with this controlling terminal."""
        return ("-c", _ENTER, self._name, *command)

    def output(self) -> str:
        """Return everything that was written to the terminal so far."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                self._output += os.read(self._master, 4096)
            except OSError:  # no process has it open
                break
        return self._output.decode(errors="replace")

    def close(self) -> None:
        """Close it: its session gets SIGHUP, and later writes fail. Safe to call twice."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1
