"""Which cores a cluster on this machine may use, and which we may: apart, it is as far from us as one elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import pids

#: What the kernel calls the processes of a single-node cluster, in its 15 letters.
CLUSTER = {
    "containerd",
    "coredns",
    "etcd",
    "kube-apiserver",
    "kube-controller",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "kwok",
}


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Until left, this program and all that it has started have this machine's last core, the cluster the others.
    Where there is one core, or no cluster on this machine, nothing changes."""
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = _named(CLUSTER), pids(os.getpid())
    if len(cores) < 2 or not theirs:
        yield
        return
    try:
        _keep(theirs, set(cores[:-1]))
        _keep(ours, set(cores[-1:]))
        yield
    finally:
        _keep([*theirs, *ours], set(cores))


def _keep(processes: list[int], cores: set[int]) -> None:
    """Every thread of these; what they start follows them."""
    for pid in processes:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)


def _named(names: set[str]) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text().strip() in names:
                    found.append(int(folder.name))
    return found
