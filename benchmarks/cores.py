"""Separate the cores of a cluster on this machine from those of the benchmark, as if the cluster ran elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.machine import pids

#: Names of the processes of a single-node cluster, which the kernel cuts to 15 letters.
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
    """Inside the context, this program and its children use this machine's last core, and the cluster the others.

    Yields False if that is impossible, because there is only one core or no cluster on this machine.

    Raises:
        PermissionError: the cluster belongs to another user.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or not _cluster_pids():
        yield False
        return
    try:
        _set_cores(_cluster_pids(), cores[:-1])
        _set_cores(pids(os.getpid()), cores[-1:])
        yield True
    finally:
        _set_cores([*_cluster_pids(), *pids(os.getpid())], cores)  # including processes started meanwhile


def _set_cores(processes: Iterable[int], cores: Iterable[int]) -> None:
    """Bind every thread of some processes to cores; their future children inherit that."""
    for pid in processes:
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)


def _cluster_pids() -> list[int]:
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if (folder / "comm").read_text().strip() in CLUSTER:
                    pids.append(int(folder.name))
    return pids
