"""The parts of the benchmark, each a small module with a ``PART``."""

from __future__ import annotations

from benchmarks.bench import Part


def parts() -> list[Part]:
    """Return all parts, in the order in which they are measured."""
    from benchmarks.parts import (
        accepting,
        bundles,
        clients,
        commands,
        container,
        follower,
        importing,
        kubernetes_create,
        kubernetes_crowd,
        kubernetes_dask,
        kubernetes_start,
        labels,
        large,
        latency,
        loops,
        memory,
        throughput,
        tidying,
        waiting,
    )

    modules = (
        throughput,
        accepting,
        latency,
        memory,
        importing,
        waiting,
        labels,
        commands,
        follower,
        large,
        bundles,
        clients,
        tidying,
    )
    clustered = (container, kubernetes_create, kubernetes_start, kubernetes_crowd, kubernetes_dask)
    return [*loops.PARTS, *(module.PART for module in (*modules, *clustered))]
