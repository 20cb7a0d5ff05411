"""Memory of this container, as its control group counts it: OOM kills and the limit.

On cgroup v1, and on v2 where a kubelet doesn't end the whole container (``singleProcessOOMKill``), only one process is
killed, and the container lives on. The counter then is the only witness. Imports the standard library alone, because
PID 1 does (:mod:`dispatcher.runner.container.parent`).
"""

from __future__ import annotations

import contextlib

#: Where a container sees its control group.
ROOT = "/sys/fs/cgroup"

_COUNTERS = ("memory.events", "memory/memory.oom_control")  # cgroup v2, v1
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_UNLIMITED = 2**60  # bytes; v1 has a huge number where there is no limit
_WORD = "oom_kill "


def oom_kills(root: str = ROOT) -> int:
    """Return the number of OOM kills in this container so far; 0 if the system doesn't count them."""
    for name in _COUNTERS:
        with contextlib.suppress(OSError, ValueError), open(f"{root}/{name}", encoding="ascii") as file:  # noqa: PTH123
            return sum(int(line.removeprefix(_WORD)) for line in file if line.startswith(_WORD))
    return 0


def limit(root: str = ROOT) -> int | None:
    """Return this container's memory limit in bytes; None if there is none, or none that can be read."""
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError), open(f"{root}/{name}", encoding="ascii") as file:  # noqa: PTH123
            text = file.read().strip()
            return None if text == "max" or int(text) >= _UNLIMITED else int(text)
    return None


def oom_message(root: str = ROOT) -> str:
    """Return what to say of a process that was killed for want of memory."""
    most = limit(root)
    if most is None:
        return "out of memory: a process was killed for want of it"
    return f"out of memory: a process was killed at the container's limit of {most / 2**20:,.0f} MiB"
