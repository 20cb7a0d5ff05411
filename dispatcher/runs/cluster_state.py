"""The state of a run's own cluster, as the run's record has it. Changed by :mod:`dispatcher.runs.cluster_steps`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from dispatcher.runs.worker_loss import WorkerLoss
from dispatcher.support.parsing import Fields, word


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """The workers of an attempt's cluster.

    ``least`` workers must have joined before the flow starts; ``ready``: they have. ``wanted`` is the number of workers
    that shall exist, ``running`` of those connected to the scheduler, ``lost`` of all that were lost in this attempt,
    ``unjoined`` of those that were lost last, one after the other, before any joined; ``last_loss`` is the newest.

    ``cause`` and ``message``: why a worker waited when one was last seen to wait, until the cluster is ready.
    ``failure``: the outcome with which the attempt is being ended, because its cluster can't be had.
    """

    least: int = 0
    wanted: int = 0
    running: int = 0
    lost: int = 0
    unjoined: int = 0
    ready: bool = False
    cause: Cause | None = None
    message: str = ""
    last_loss: WorkerLoss | None = None
    failure: Outcome | None = None
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: fields of another release, unchanged

    @property
    def counts(self) -> dict[str, int]:
        """The numbers that people see, as an event has them."""
        return {"wanted": self.wanted, "running": self.running, "lost": self.lost}

    @property
    def text(self) -> str:
        """The numbers that people see, as one phrase."""
        return counted_workers(self.counts)

    def over(self) -> ClusterState:
        """Return the state after the attempt has ended: no worker is wanted, and none runs."""
        return replace(self, wanted=0, running=0, failure=None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        data = {name: value for name in _OWN_FIELDS if (value := getattr(self, name)) not in (None, "", 0, False)}
        for name in ("last_loss", "failure"):
            if name in data:
                data[name] = data[name].to_json()
        return {**self.others, **data}

    @classmethod
    def from_json(cls, data: Any) -> ClusterState:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no such state.
        """
        parsed = Fields(data, "workers")
        present = {name for name in ("cause", "last_loss", "failure") if parsed.data.get(name) is not None}
        return cls(
            **{name: parsed.whole(name, 0) for name in ("least", "wanted", "running", "lost", "unjoined")},
            ready=parsed.flag("ready", False),
            cause=word(Cause, parsed.get("cause"), "workers: cause") if "cause" in present else None,
            message=parsed.text("message", ""),
            last_loss=WorkerLoss.from_json(parsed.get("last_loss")) if "last_loss" in present else None,
            failure=Outcome.from_json(parsed.get("failure")) if "failure" in present else None,
            others=parsed.but(_OWN_FIELDS),
        )


_OWN_FIELDS = tuple(f.name for f in fields(ClusterState) if f.name != "others")


def counted_workers(counts: Mapping[str, Any]) -> str:
    """Return the numbers of workers wanted, running and lost as one phrase; those that aren't there are left out."""
    numbers = [f"{counts[name]} {name}" for name in ("wanted", "running") if isinstance(counts.get(name), int)]
    lost = counts.get("lost")
    return ", ".join([*numbers, *([f"{lost} lost"] if lost and isinstance(lost, int) else [])])
