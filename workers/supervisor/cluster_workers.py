"""A supervisor's memory of the workers of one attempt's cluster. No I/O; for :mod:`workers.supervisor.scaling`.

Nothing of it is stored but the numbers in the record. After a takeover the runner's next heartbeat brings the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backends.base import Observation, Phase, WorkerState
from dispatcher.runs.cluster import WorkerReport, worker_number
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.states import Cause
from dispatcher.runs.wait import Wait
from dispatcher.runs.worker_loss import WorkerLoss
from workers.supervisor.judgement import OVER
from workers.supervisor.scale_decision import ClusterView

#: Seconds for which a created worker that isn't seen counts as one that exists.
UNSEEN_FOR = 30.0

#: Seconds for which the end of a worker waits for its reason: of one whose container still runs, or that was deleted.
REASON_TIMEOUT = 5.0

#: Seconds for which the end of a worker that had joined waits for the runner, who knows whether it was asked to leave.
RUNNER_TIMEOUT = 15.0

#: Seconds after which a reason that has come back is news again.
OLD_NEWS = 60.0

#: Workers that end one after the other before any joins: so many end the attempt.
MOST_UNJOINED = 3

#: Causes with which an observation ends a container that never ran.
_NEVER_RAN = frozenset({Cause.IMAGE_PULL, Cause.UNSCHEDULABLE, Cause.QUOTA, Cause.CONFIG_ERROR})

#: Causes of which no worker ends that was asked to leave.
_DISASTERS = frozenset({Cause.OOM_KILLED, Cause.EVICTED, Cause.PREEMPTED, Cause.SPOT_INTERRUPTED, Cause.NODE_LOST})


@dataclass(frozen=True, kw_only=True)
class WorkerEnd:
    """The end of a worker that nobody asked for. ``observation`` is its container's; None: it vanished, or runs on."""

    name: str
    joined: bool
    observation: Observation | None = None
    vanished: bool = False

    @property
    def hopeless(self) -> bool:
        """Return True if its container can't run, so that another one couldn't either."""
        observation = self.observation
        return (
            not self.joined
            and observation is not None
            and observation.exit_code is None
            and observation.cause in _NEVER_RAN
        )

    @property
    def loss(self) -> WorkerLoss:
        """The loss that it is."""
        observation = self.observation
        if observation is None:
            message = "its container was deleted" if self.vanished else "it lost its connection, and its container runs"
            cause = Cause.KILLED if self.vanished else None
            return WorkerLoss(name=self.name, joined=self.joined, cause=cause, message=message)
        return WorkerLoss(
            name=self.name,
            joined=self.joined,
            cause=observation.cause or (None if self.joined else Cause.START_FAILED),
            reason=observation.reason,
            message=observation.message,
            exit_code=observation.exit_code,
        )


class ClusterWorkers:
    """The workers of one attempt, as the last reports and observations have them.

    Times are monotonic, in seconds.

    Args:
        attempt: its number.
        first: names of the workers with which it starts.
        most: how many may live at a time.
        state: of the record.
    """

    def __init__(self, attempt: int, *, first: Sequence[str], most: int, state: ClusterState) -> None:
        self.attempt = attempt
        self.first = tuple(first)
        self.most = most
        self.lost, self.unjoined = state.lost, state.unjoined
        self.losses: list[WorkerLoss] = []  #: not noted in the record yet
        self.refusal: Wait | None = None  #: why the last creation was refused
        self.refused_until = 0.0  #: no creation is requested before
        self.noted_at: float | None = None  #: when the record was written last
        self._inherited = "" if state.last_loss is None else state.last_loss.name  # accounted for by another supervisor
        self._told: dict[str, float] = {}  # key of a wait → when it was seen last since an event told of it
        self._report: WorkerReport | None = None
        self._observations: dict[str, Observation] = {}  # of the workers that exist
        self._joined: set[str] = set()
        self._ending: dict[str, float] = {}  # since when an end is known whose reason isn't
        self._reading: set[str] = set()  # their last lines are read
        self._settled: set[str] = set()  # their end is accounted for, or was asked for
        self._requested: dict[str, tuple[float, bool]] = {}  # creation → when, and whether it may have failed

    @property
    def report(self) -> WorkerReport | None:
        """The last report; None if there is none yet."""
        return self._report

    def update(
        self, report: WorkerReport | None, states: Iterable[WorkerState], at: float, *, closing: bool = False
    ) -> list[WorkerEnd]:
        """Take over a report and an observation. Return the ends that are known by now, with their reasons.

        Without a report nobody knows which workers have joined; then nothing counts as an end. Once the cluster is
        ``closing``, only what the runner reports as lost does.
        """
        before = self._observations
        self._observations = {
            state.name: state.observation for state in states if state.observation.phase is not Phase.GONE
        }
        if (inherited := self._observations.get(self._inherited)) is not None and inherited.phase in OVER:
            self._settled.add(self._inherited)
        self._inherited = ""
        self._requested = {
            name: request
            for name, request in self._requested.items()
            if name not in self._observations and at - request[0] < UNSEEN_FOR
        }
        self._report = report
        if report is None:
            return []
        if {*report.connected, *report.lost} - self._joined:
            self.unjoined = 0
        self._joined.update(report.connected, report.lost)
        self._forget(report)
        vanished = before.keys() - self._observations.keys()
        if closing:
            report = replace(report, wanted=())
        return [end for name in self._candidates(report, vanished) if (end := self._ended(name, report, at))]

    def has_unexplained(self, report: WorkerReport) -> bool:
        """Return True if a worker that the runner reports as lost isn't accounted for, or an event is due."""
        pending = {name for name in report.lost if name in self._observations and name not in self._settled}
        return bool(pending or self._reading or self.losses)

    def _candidates(self, report: WorkerReport, vanished: Iterable[str]) -> list[str]:
        """Return the names of workers that may have ended and aren't accounted for."""
        over = {name for name, observation in self._observations.items() if observation.phase in OVER}
        lost = {name for name in report.lost if name in self._observations}
        names = (over | lost | set(vanished) | self._ending.keys()) - self._settled - self._reading
        return sorted(names, key=worker_number)

    def _ended(self, name: str, report: WorkerReport, at: float) -> WorkerEnd | None:
        """Return the end of a worker, once its reason is known or won't be; None also if it was asked for."""
        observation, lost = self._observations.get(name), name in report.lost
        over = observation is None or observation.phase in OVER
        if not over and not lost:  # it runs
            self._ending.pop(name, None)
            return None
        if not lost and name not in report.wanted and (observation is None or observation.cause not in _DISASTERS):
            self._settle(name)
            return None
        since = self._ending.setdefault(name, at)
        if at - since < self._patience(name, observation, lost=lost, over=over):
            return None
        del self._ending[name]
        self._reading.add(name)
        joined = name in self._joined
        return WorkerEnd(
            name=name, joined=joined, observation=observation if over else None, vanished=observation is None
        )

    def _patience(self, name: str, observation: Observation | None, *, lost: bool, over: bool) -> float:
        """Return the seconds for which an end waits for its reason."""
        if name in self._joined and not lost:
            return RUNNER_TIMEOUT
        return REASON_TIMEOUT if not over or (observation is not None and observation.tentative) else 0.0

    def _settle(self, name: str) -> None:
        self._ending.pop(name, None)
        self._settled.add(name)

    def _forget(self, report: WorkerReport) -> None:
        """Forget the workers that are gone and that nobody will name again."""
        names = {*report.wanted, *report.connected, *report.lost, *self._observations, *self._ending, *self._reading}
        self._joined &= names
        self._settled &= names

    def account(self, end: WorkerEnd) -> WorkerLoss:
        """Count the loss of a worker whose last lines were read, or can't be."""
        self._reading.discard(end.name)
        self._settled.add(end.name)
        self.lost += 1
        self.unjoined = self.unjoined if end.joined else self.unjoined + 1
        self.losses.append(end.loss)
        return end.loss

    def requested(self, names: Iterable[str], at: float, *, failed: bool = False) -> None:
        """Note that the creation of workers was requested, has succeeded, or has ``failed``."""
        for name in names:
            self._requested[name] = at, failed
            self._settled.discard(name)

    def deleted(self, names: Iterable[str]) -> None:
        """Note that the deletion of workers is requested: their end isn't one that nobody asked for."""
        self._settled.update(names)

    def view(self, *, ready: bool, growing: bool) -> ClusterView:
        """Return what decides on creations and deletions.

        Args:
            ready: whether the record says that the least workers have joined.
            growing: whether any may be created.
        """
        phases = {name: observation.phase for name, observation in self._observations.items()}
        report = self._report
        creating = frozenset(name for name, (_, failed) in self._requested.items() if not failed)
        if report is None:
            wanted, connected, spared = None if ready else self.first, frozenset[str](), frozenset(phases)
        else:
            wanted, connected = report.wanted, frozenset(report.connected)
            spared = frozenset(self._ending.keys() | self._reading)
        return ClusterView(
            wanted=wanted,
            connected=connected,
            most=self.most,
            phases=phases,
            creating=creating,
            doubtful=frozenset(self._requested.keys() - creating),
            spent=frozenset(self._joined - connected),
            spared=spared,
            growing=growing,
        )

    def state(self, before: ClusterState) -> ClusterState:
        """Return the state for the record, whose state is ``before``."""
        report = self._report
        if report is None:
            return replace(before, lost=self.lost, unjoined=self.unjoined)
        return replace(
            before,
            wanted=min(len(report.wanted), self.most),
            running=min(len(report.connected), self.most),
            lost=self.lost,
            unjoined=self.unjoined,
            ready=before.ready or report.ready,
        )

    def trouble(self) -> Wait | None:
        """Return why workers wait: of the first one that does, with its name; None if none does."""
        waiting = [
            name
            for name, observation in self._observations.items()
            if observation.phase is Phase.WAITING and observation.cause is not None and name not in self._settled
        ]
        if not waiting:
            return self.refusal
        name = min(waiting, key=worker_number)
        return _named(name, self._observations[name])

    def news(self, trouble: Wait | None, at: float) -> Wait | None:
        """Return the reason for which workers wait, unless an event has told of it; :meth:`told` notes that."""
        if trouble is None:
            return None
        if at - self._told.get(trouble.key, -math.inf) >= OLD_NEWS:
            return trouble
        self._told[trouble.key] = at
        return None

    def told(self, trouble: Wait, at: float) -> None:
        """Note that an event has told of a reason."""
        self._told = {key: when for key, when in self._told.items() if at - when < OLD_NEWS} | {trouble.key: at}


def _named(name: str, observation: Observation) -> Wait:
    message = f"worker {name}: {observation.message}" if observation.message else f"worker {name}"
    return Wait.of(observation.cause, observation.reason, message)
