"""The parts of the benchmark, each a small module with a ``PART``; in the order in which they are measured."""

from __future__ import annotations

from benchmarks.bench import Part


def parts() -> list[Part]:
    """All of them; that of the runner image where a Docker engine answers."""
    from benchmarks.parts import (
        accepting,
        clients,
        commands,
        container,
        follower,
        importing,
        labels,
        large,
        latency,
        memory,
        throughput,
        waiting,
    )

    modules = (throughput, accepting, latency, memory, importing, waiting, labels, commands, follower, large, clients)
    found = [module.PART for module in modules]
    return [*found, container.PART] if container.there() else found
