"""Threads and memory of a Dask worker, by the resources of its pod. Pure.

Left alone, each worker would take all of its node: containers see the node's processors and memory, not their share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backends.kubernetes.job_forms import amount_of

#: ``dask worker``'s own choice: the part of the memory of node or container that belongs to its threads.
AUTO = "auto"


def threads(pod: Mapping[str, Any]) -> int:
    """Return the number of threads: the worker's processors, rounded up; 1 if none are given.

    Args:
        pod: the pod's spec.
    """
    cpu = _amount(pod, "cpu")
    return 1 if cpu is None else max(1, math.ceil(round(cpu, 6)))


def memory(pod: Mapping[str, Any]) -> str:
    """Return the memory in bytes, as text; :data:`AUTO` if none is given.

    Args:
        pod: the pod's spec.
    """
    amount = _amount(pod, "memory")
    return AUTO if amount is None or amount < 2 else str(int(amount))  # 1 would be all of the node's


def _amount(pod: Mapping[str, Any], resource: str) -> float | None:
    """Return a resource's limit, else its request: the first container's, else the pod's."""
    container = pod["containers"][0].get("resources") or {}
    whole = pod.get("resources") or {}
    for part, field in ((container, "limits"), (whole, "limits"), (container, "requests"), (whole, "requests")):
        amount = amount_of((part.get(field) or {}).get(resource))
        if amount is not None and amount >= 1e-3:
            return amount
    return None
