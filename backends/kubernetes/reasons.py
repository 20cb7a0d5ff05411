"""Evaluation of an attempt's Kubernetes objects: dicts in, an observation out. Pure.

The state of the objects and the clocks decide; events only add texts. Some reasons alternate (``ErrImagePull``,
``ImagePullBackOff``): they share a clock, which starts at their first sight, and the most informative text is kept. The
caller keeps the :data:`Clocks` between two observations. The meaning of each reason is in
:mod:`backends.kubernetes.reason_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backends.base import Observation, Phase
from backends.container.failed_starts import explained, last_line, meaning
from backends.kubernetes.kills import EVENT_GRACE, FROM_WITHIN, kill_event, was_told_to_stop
from backends.kubernetes.pod_state import condition, container_state, failed_inits
from backends.kubernetes.reason_table import NO_NODE, TABLE, Field, Rule, rule_of
from backends.kubernetes.start import Start, init_name, prefixed, unknown_node
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.states import Cause

Object = Mapping[str, Any]

#: Start of each clock (seconds, monotonic), and the text kept with it.
Clocks = Mapping[str, tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as it was last seen. ``gone``: its deletion was seen, or it is no longer listed."""

    object: Object
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that is known of one attempt's objects. ``job`` None: there is no Job; ``deleted``: its deletion was seen."""

    job: Object | None
    deleted: bool = False
    pods: Sequence[Pod] = ()
    events: Sequence[Object] = ()
    container: str = "flow"


def observe(snapshot: Snapshot, clocks: Clocks, now: float) -> tuple[Observation, Clocks]:
    """Return the observation, and the clocks to pass next time.

    Args:
        snapshot: the attempt's objects.
        clocks: of the last observation; empty at the first.
        now: seconds, monotonic.
    """
    evaluation = _Evaluation(snapshot, dict(clocks), now)
    return evaluation.observation(), evaluation.clocks


@dataclass
class _Evaluation:
    snapshot: Snapshot
    clocks: dict[str, tuple[float, str]]
    now: float
    _job: Object = field(init=False)
    _start: Start = field(init=False)

    def __post_init__(self) -> None:
        self._job = self.snapshot.job or {}
        self._start = Start(self._job, self.snapshot.events, self.snapshot.container, self.clocks, self.now)

    def observation(self) -> Observation:
        container = self.snapshot.container
        if self._job.get("spec", {}).get("suspend"):
            return self._start.of_suspended_job(
                ran=any(has_started(pod.object, container) for pod in self.snapshot.pods)
            )
        live = [pod.object for pod in self.snapshot.pods if not pod.gone and not has_ended(pod.object, container)]
        if live:
            return self._of_live_pod(live[-1])
        for pod in self.snapshot.pods:
            if (observation := self._of_ended_pod(pod)) is not None:
                return observation
        return self._of_job()

    def _of_live_pod(self, pod: Object) -> Observation:
        if (reason := node_lost_reason(pod)) is not None:
            return Observation(phase=Phase.UNKNOWN, cause=Cause.NODE_LOST, reason=reason, message=_node_lost(pod))
        flow = container_state(pod, self.snapshot.container)
        if flow.get("running") is not None:
            return self._of_running_pod(pod)
        return self._start.of_pod(pod)

    def _of_running_pod(self, pod: Object) -> Observation:
        """Return the observation of a running container, with the cause if it is being ended: its runner only
        receives SIGTERM."""
        rule, reason, message = self._disruption(pod, "", "")
        if rule is not None:
            return Observation(phase=Phase.RUNNING, cause=rule.cause, reason=reason, message=message)
        if pod.get("metadata", {}).get("deletionTimestamp"):
            message = self._deletion(pod)
            return Observation(
                phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", message=message, tentative=True
            )
        return Observation(phase=Phase.RUNNING)

    def _of_ended_pod(self, pod: Pod) -> Observation | None:
        """Return the end of a pod; None if it was deleted before the flow's container started."""
        status = pod.object.get("status", {})
        flow = container_state(pod.object, self.snapshot.container)
        terminated = flow.get("terminated") or {}
        code = terminated.get("exitCode")
        reason, message = str(terminated.get("reason") or ""), str(terminated.get("message") or "")
        rule = TABLE.get((Field.TERMINATED, reason))
        if rule is not None:
            message = _of_container(rule, message)
        else:
            rule, reason, message = self._disruption(pod.object, reason, message)
        if rule is not None and (node := _missing_node(pod.object)) is not None:
            rule, message = NO_NODE, unknown_node(node)
        if rule is not None:
            return Observation(
                phase=Phase.ENDED, cause=rule.cause, reason=reason, message=_readable(message), exit_code=code
            )
        if terminated:
            observation = _of_exit(code, reason, message)
            return self._of_kill(pod.object, observation) if was_told_to_stop(observation) else observation
        if (failed := _failed_init(pod.object)) is not None:
            return failed
        if flow.get("running") is not None:
            cause, reason, message = Cause.KILLED, "deleted", self._deletion(pod.object)
            if (lost := node_lost_reason(pod.object)) is not None:
                cause, reason, message = Cause.NODE_LOST, lost, _node_lost(pod.object)
            return Observation(phase=Phase.GONE, cause=cause, reason=reason, message=message)
        if status.get("phase") == "Failed":
            reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
            cause = Cause.START_FAILED if reason else Cause.UNKNOWN  # its node has refused it, for a reason of its own
            return Observation(phase=Phase.ENDED, cause=cause, reason=reason or "Failed", message=message)
        return None

    def _of_kill(self, pod: Object, observation: Observation) -> Observation:
        """Return the observation of a container that a signal ended, with what its pod tells about who sent it."""
        if pod.get("metadata", {}).get("deletionTimestamp"):
            message = self._deletion(pod)
            return replace(observation, cause=Cause.KILLED, reason="deleted", message=message, tentative=True)
        if event := kill_event(self.snapshot.events, pod, self.snapshot.container):
            return replace(observation, cause=Cause.KILLED, reason=event.reason, message=event.message)
        if observation.cause is not Cause.PREEMPTED:
            return observation
        started, _ = self.clocks.setdefault("stopped", (self.now, ""))
        over = pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}
        tentative = not over or self.now - started < EVENT_GRACE
        return replace(observation, cause=Cause.KILLED, reason="SIGTERM", message=FROM_WITHIN, tentative=tentative)

    def _deletion(self, pod: Object) -> str:
        """Return the sentence about a pod that was deleted while its flow ran: by itself, or with its Job."""
        job = self.snapshot.job
        if job is None or self.snapshot.deleted or job.get("metadata", {}).get("deletionTimestamp"):
            orphaned = pod.get("metadata", {}).get("orphaned")
            return "its pod was deleted while it ran" if orphaned else "its Job was deleted while it ran"
        if job.get("spec", {}).get("parallelism") == 0:
            return "its Job's spec.parallelism was set to 0 while it ran, which deletes its pod"
        return "its pod was deleted while it ran"

    def _disruption(self, pod: Object, reason: str, message: str) -> tuple[Rule | None, str, str]:
        """Return rule, reason and message of what ended a pod from outside: its own status, a disruption, or the Job's
        deadline. Without one, None with the reason and message passed in."""
        status = pod.get("status", {})
        target = condition(pod, "DisruptionTarget")
        for kind, part in ((Field.POD, status), (Field.DISRUPTION, target), (Field.JOB, self._deadline())):
            own_reason = str(part.get("reason") or "")
            if rule := rule_of(kind, own_reason):
                return rule, own_reason, str(part.get("message") or "")
        return None, reason, message

    def _deadline(self) -> Object:
        for kind in ("Failed", "FailureTarget"):
            failure = condition(self._job, kind)
            if failure.get("reason") == "DeadlineExceeded":
                return failure
        return {}

    def _of_job(self) -> Observation:
        """Return the observation of the Job alone, where no pod has a state to report."""
        if self.snapshot.job is None:
            if self.snapshot.deleted:
                return Observation(
                    phase=Phase.GONE, cause=Cause.KILLED, reason="deleted", message="its Job was deleted"
                )
            message = "its Job is gone, and no object is left that tells how it ended"
            return Observation(phase=Phase.GONE, cause=Cause.UNKNOWN, reason="gone", message=message)
        failed = condition(self._job, "Failed")
        if failed:
            reason = str(failed.get("reason") or "Failed")
            rule = TABLE.get((Field.JOB, reason)) or Rule(Cause.UNKNOWN)
            message = str(failed.get("message") or "")
            return Observation(phase=Phase.ENDED, cause=rule.cause, reason=reason, message=message)
        if condition(self._job, "Complete"):
            return Observation(phase=Phase.ENDED, reason="Complete", exit_code=0)
        return self._start.without_pod()


def has_ended(pod: Object, container: str) -> bool:
    """Return True if the pod or the flow's container has ended, whatever else still runs in the pod."""
    if pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}:
        return True
    return container_state(pod, container).get("terminated") is not None


def has_started(pod: Object, container: str) -> bool:
    """Return True if a container of the pod runs or has run, so that it may have a log."""
    state = container_state(pod, container)
    return state.get("running") is not None or state.get("terminated") is not None


def _failed_init(pod: Object) -> Observation | None:
    for status in failed_inits(pod):
        terminated = status["state"]["terminated"]
        code = int(terminated["exitCode"])
        reason = str(terminated.get("reason") or "Error")
        rule = TABLE.get((Field.TERMINATED, reason))
        cause = rule.cause if rule else Cause.KILLED if code == 137 else Cause.START_FAILED
        message = _readable(str(terminated.get("message") or "")) or f"ended with exit code {code}"
        return Observation(
            phase=Phase.ENDED,
            cause=cause,
            reason=reason,
            message=prefixed(init_name(pod, status), message),
            exit_code=code,
        )
    return None


def node_lost_reason(pod: Object) -> str | None:
    """Return the reason to assume that the pod's node doesn't answer; None if it does. Never enough to end a run."""
    statuses = {item.get("type"): item.get("status") for item in pod.get("status", {}).get("conditions") or ()}
    if statuses.get("Ready") == "Unknown":
        return str(condition(pod, "Ready").get("reason") or "NodeLost")
    disruption = str(condition(pod, "DisruptionTarget").get("reason") or "")
    rule = TABLE.get((Field.DISRUPTION, disruption))
    if rule is not None and rule.cause is Cause.NODE_LOST:
        return disruption
    not_ready = statuses.get("Ready") == "False" and statuses.get("ContainersReady") == "True"
    if not_ready and "readinessGates" not in pod["spec"]:
        return "NodeNotReady"  # set by the node controller, also where it evicts nothing; the kubelet's own was True
    return "NodeLost" if pod.get("status", {}).get("reason") == "NodeLost" else None


def _missing_node(pod: Object) -> str | None:
    """Return the node that a pod's spec names and that never took it, as Kubernetes collects such a pod; else None."""
    node = pod.get("spec", {}).get("nodeName")
    collected = condition(pod, "DisruptionTarget").get("reason") == "DeletionByPodGC"
    return str(node) if node and collected and not condition(pod, "PodScheduled") else None


def _node_lost(pod: Object) -> str:
    return f"node {pod.get('spec', {}).get('nodeName') or '?'} doesn't answer"


def _of_exit(code: int | None, reason: str, message: str) -> Observation:
    """Return the observation of an exit code, with cause and message of the runner where it left any."""
    words = _runner_message(message)
    if words is not None:
        return Observation(phase=Phase.ENDED, cause=words[0], reason=reason, message=words[1], exit_code=code)
    cause: Cause | None = None
    if code is not None and code > 128:
        cause, message = Cause.KILLED, ""  # the flow's last lines, if any, which are read apart
    elif code:
        cause = Cause.START_FAILED
        return Observation(phase=Phase.ENDED, cause=cause, reason=reason, message=explained(message), exit_code=code)
    return Observation(phase=Phase.ENDED, cause=cause, reason=reason, message=message, exit_code=code)


def _of_container(rule: Rule, message: str) -> str:
    """Return what a container that was killed, or wasn't started, left: words of the node, or the flow's last lines."""
    if _runner_message(message) is not None:
        return message
    if rule.cause is Cause.START_FAILED:
        problem = meaning(message.splitlines())
        return message if problem is None else f"its image can't run the runner: {problem}; {message}"
    return last_line(message)


def _runner_message(message: str) -> tuple[Cause, str] | None:
    """Return cause and text that a runner left in its termination message; None if it isn't a runner's."""
    words = TerminationMessage.parse(message)
    if words is None:
        return None
    outcome = words.outcome()
    text = ": ".join(part for part in (outcome.reason, outcome.message) if part)
    return outcome.cause or Cause.UNKNOWN, text


def _readable(message: str) -> str:
    """Return a termination message as text; the runner's is JSON."""
    words = _runner_message(message)
    return message if words is None else words[1]
