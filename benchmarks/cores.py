"""Which cores a cluster on this machine may use, and which we may: apart, it is as far from us as one elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
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
def apart() -> Iterator[bool]:
    """Until left, this program and all that it has started have this machine's last core, the cluster the others.
    False where that can't be: there is one core, or no cluster on this machine.

    Raises:
        PermissionError: the cluster belongs to somebody else.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or not _cluster():
        yield False
        return
    try:
        _keep(_cluster(), cores[:-1])
        _keep(pids(os.getpid()), cores[-1:])
        yield True
    finally:
        _keep([*_cluster(), *pids(os.getpid())], cores)  # also what was started meanwhile


def _keep(processes: Iterable[int], cores: Iterable[int]) -> None:
    """Every thread of these; what they start follows them."""
    for pid in processes:
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)


def _cluster() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if (folder / "comm").read_text().strip() in CLUSTER:
                    found.append(int(folder.name))
    return found
