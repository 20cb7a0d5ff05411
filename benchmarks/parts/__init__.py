"""The parts of the benchmark, each a small module with a ``PART``; in the order in which they are measured."""

from __future__ import annotations

from benchmarks.bench import Part


def parts() -> list[Part]:
    """All of them."""
    from benchmarks.parts import (
        accepting,
        clients,
        commands,
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
    return [module.PART for module in modules]
