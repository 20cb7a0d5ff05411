"""Flows for tests of the client, and a stand-in for the worker of a waiting run."""

from __future__ import annotations

from dispatcher import Dispatcher, flow
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome


@flow(tags=["sums"])
def add(a: int, b: int = 2) -> int:
    print("adding")  # noqa: T201 - flows print
    return a + b


@flow
def fail(text: str = "boom") -> None:
    raise ValueError(text)


def finish(client: Dispatcher, run_id: str, outcome: Outcome | None = None) -> None:
    """Start and finish a waiting run, as a worker does."""
    started = client.records.runs.update(run_id, lambda r, now: transitions.start_here(r, now, owner="w", holder="h"))
    done = outcome or Outcome()
    client.records.runs.update(run_id, lambda r, now: transitions.finish(r, now, epoch=started.epoch, outcome=done))
