"""Findings that follow from what a server says of itself. Pure; :mod:`dispatcher.admin.doctor` reads the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dispatcher.inspection.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from dispatcher.records.redis.connection.health import ServerHealth

#: The oldest Redis that has the commands we use.
_OLDEST_REDIS = (7, 0)
#: Seconds by which clocks may differ unnoticed.
_CLOCK_TOLERANCE = 2.0
#: Share of the memory limit above which a server is nearly full.
_NEARLY_FULL = 0.7


def judge(health: ServerHealth, where: str, *, now: float) -> Iterator[Finding]:
    """Yield the findings that follow from a server's state for the runs kept there.

    Args:
        health: as the server reported it.
        where: the server's address, for people.
        now: this machine's clock, in seconds since the epoch.
    """
    if health.version is None:
        yield warning("server", f"{where} answers, but tells nothing of itself", "allow this user INFO, for `doctor`")
    elif health.product == "redis" and numbers(health.version) < _OLDEST_REDIS:
        yield problem("server", f"{where}: Redis {health.version} is too old", "use Redis 7.0 or Valkey 7.2, or later")
    else:
        yield ok("server", f"{where} answers, {health.product} {health.version}")
    if health.primary is False:
        yield problem("server", f"{where} is a replica, which takes no writes", "name the primary, or its Sentinels")
    yield from _persistence(health)
    yield from eviction("memory", health)
    difference = abs(health.clock - now)
    if difference > _CLOCK_TOLERANCE:
        yield warning("clock", f"the server's clock and this machine's are {difference:.1f} s apart", "set both by NTP")
    else:
        yield ok("clock", f"within {_CLOCK_TOLERANCE:g} s of the server's")


def eviction(subject: str, health: ServerHealth) -> Iterator[Finding]:
    """Check whether the server may drop what is kept there, and whether it is nearly full."""
    if health.eviction is not None and health.eviction != "noeviction":
        yield problem(
            subject,
            f"maxmemory-policy is {health.eviction}: a full server drops runs",
            "maxmemory-policy noeviction in its configuration, or CONFIG SET maxmemory-policy noeviction",
        )
    elif health.limit and health.memory is not None and health.memory > _NEARLY_FULL * health.limit:
        share = 100 * health.memory / health.limit
        yield warning(subject, f"{share:.0f} % of maxmemory in use", "raise maxmemory, or keep runs less long")
    elif health.eviction is not None:
        used = "" if health.memory is None else f", {health.memory / 2**20:.0f} MiB in use"
        yield ok(subject, f"nothing is evicted{used}")


def numbers(version: str) -> tuple[int, ...]:
    """Return major and minor version as numbers."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _persistence(health: ServerHealth) -> Iterator[Finding]:
    if health.append_failed:
        yield problem("persistence", "the server can't write its append-only file", "is its disk full?")
    elif health.appends is False:
        remedy = "appendonly yes in its configuration, or CONFIG SET appendonly yes"
        yield warning("persistence", "no append-only file: a restart forgets accepted runs", remedy)
    elif health.appends:
        yield ok("persistence", "append-only file")
