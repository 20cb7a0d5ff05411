"""The meaning of Kubernetes' objects for an attempt, in our words. Pure: dicts in, an observation out.

Every reason that is known stands in :data:`TABLE`, with its cause and how long it may last. State and clock decide;
events only give the text. Some reasons alternate (``ErrImagePull``, ``ImagePullBackOff``): they share a clock, which
runs from first sight, and the text that says most is kept. That memory is the caller's (:data:`Memory`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backends.base import Observation, Phase
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.states import Cause

Object = Mapping[str, Any]

#: Clock → when it began (seconds, monotonic), and the text that is kept.
Memory = Mapping[str, tuple[float, str]]

QUOTA = "exceeded quota"  #: what the API server says where a quota is exhausted
PATIENCE = 30.0  # seconds for which no pod, or a container that is being created, is nothing to speak of
MISSING = 60.0  # seconds after which an object that is missing is taken for a mistake
NOT_FOUND = 90.0  # seconds for an image that the registry says it doesn't have


class Where(StrEnum):
    """The place in which a reason stands."""

    WAITING = "a container's state.waiting"
    TERMINATED = "a container's state.terminated"
    POD = "a pod's status"
    DISRUPTION = "a pod's condition DisruptionTarget"
    SCHEDULED = "a pod's condition PodScheduled"
    JOB = "a Job's condition"


@dataclass(frozen=True)
class Row:
    """The meaning of a reason. ``final``: seconds on its clock after which the attempt ends; None: ``start_within``
    decides. ``paused``: a quota queue holds it."""

    cause: Cause | None
    final: float | None = None
    clock: str = ""
    paused: bool = False


_PULL = Row(Cause.IMAGE_PULL, clock="image")
_NO_START = Row(Cause.START_FAILED, MISSING, "start")  # a busy node may fail once and try again
_PREEMPTED = Row(Cause.PREEMPTED)
_NO_ROOM = Row(Cause.UNSCHEDULABLE)
_DELETED = "its pod was deleted while it ran"

TABLE: Mapping[tuple[Where, str], Row] = {
    (Where.WAITING, "InvalidImageName"): Row(Cause.CONFIG_ERROR, 0.0),
    (Where.WAITING, "ErrImageNeverPull"): Row(Cause.CONFIG_ERROR, 0.0),
    (Where.WAITING, "ErrImagePull"): _PULL,
    (Where.WAITING, "ImagePullBackOff"): _PULL,
    (Where.WAITING, "RegistryUnavailable"): _PULL,
    (Where.WAITING, "SignatureValidationFailed"): _PULL,
    (Where.WAITING, "ImageInspectError"): _PULL,
    (Where.WAITING, "CreateContainerConfigError"): Row(Cause.CONFIG_ERROR, MISSING, "config"),
    (Where.WAITING, "CreateContainerError"): _NO_START,
    (Where.WAITING, "RunContainerError"): _NO_START,
    (Where.TERMINATED, "StartError"): Row(Cause.START_FAILED),
    (Where.TERMINATED, "ContainerCannotRun"): Row(Cause.START_FAILED),
    (Where.TERMINATED, "OOMKilled"): Row(Cause.OOM_KILLED),
    (Where.SCHEDULED, "Unschedulable"): Row(Cause.UNSCHEDULABLE),
    (Where.SCHEDULED, "SchedulingGated"): Row(None, paused=True),
    (Where.JOB, "Suspended"): Row(None, paused=True),
    (Where.POD, "Evicted"): Row(Cause.EVICTED),
    (Where.POD, "Preempting"): _PREEMPTED,
    (Where.POD, "NodeShutdown"): _PREEMPTED,
    (Where.POD, "Terminated"): _PREEMPTED,
    (Where.POD, "OutOfcpu"): _NO_ROOM,
    (Where.POD, "OutOfmemory"): _NO_ROOM,
    (Where.POD, "OutOfpods"): _NO_ROOM,
    (Where.POD, "OutOfephemeral-storage"): _NO_ROOM,
    (Where.POD, "NodeAffinity"): _NO_ROOM,
    (Where.POD, "UnexpectedAdmissionError"): Row(Cause.START_FAILED),
    (Where.POD, "NodeLost"): Row(Cause.NODE_LOST),
    (Where.POD, "DeadlineExceeded"): Row(Cause.DEADLINE),
    (Where.DISRUPTION, "PreemptionByScheduler"): _PREEMPTED,
    (Where.DISRUPTION, "EvictionByEvictionAPI"): Row(Cause.EVICTED),
    (Where.DISRUPTION, "TerminationByKubelet"): Row(Cause.EVICTED),
    (Where.DISRUPTION, "DeletionByTaintManager"): Row(Cause.NODE_LOST),
    (Where.DISRUPTION, "DeletionByPodGC"): Row(Cause.NODE_LOST),
    (Where.JOB, "DeadlineExceeded"): Row(Cause.DEADLINE),
}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod as it was last seen; ``gone``: its deletion was seen, or it is no longer listed."""

    object: Object
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Sight:
    """All that is known of one attempt's objects. ``job`` None: there is none; ``deleted``: its end was seen."""

    job: Object | None
    deleted: bool = False
    pods: Sequence[Pod] = ()
    events: Sequence[Object] = ()
    container: str = "flow"


def observe(sight: Sight, memory: Memory, now: float) -> tuple[Observation, Memory]:
    """Return what was seen, and what to remember until the next look.

    Args:
        sight: the attempt's objects.
        memory: from the last look; empty at the first.
        now: seconds, monotonic.
    """
    look = _Look(sight, dict(memory), now)
    return look.at_all(), look.memory


@dataclass
class _Look:
    sight: Sight
    memory: dict[str, tuple[float, str]]
    now: float
    _job: Object = field(init=False)

    def __post_init__(self) -> None:
        self._job = self.sight.job or {}

    def at_all(self) -> Observation:
        if self._job.get("spec", {}).get("suspend"):
            text = condition(self._job, "Suspended").get("message") or "the Job is suspended: a quota queue holds it"
            return self._from(TABLE[Where.JOB, "Suspended"], "Suspended", text)
        live = [pod.object for pod in self.sight.pods if not pod.gone and not _over(pod.object, self.sight.container)]
        if live:
            return self._at_live(live[-1])
        for pod in self.sight.pods:
            if (ended := self._at_ended(pod)) is not None:
                return ended
        return self._at_job()

    def _from(self, row: Row, reason: str, message: str) -> Observation:
        """Return the observation of a row: it waits, or ends because its clock has run out."""
        final = row.final
        began, kept = self._clock(row.clock or reason, message)
        if row.clock == "image":
            final = NOT_FOUND if "not found" in kept else None
        over = final is not None and self.now - began >= final
        phase = Phase.ENDED if over else Phase.WAITING
        return Observation(phase=phase, cause=row.cause, reason=reason, message=kept, paused=row.paused)

    def _clock(self, clock: str, message: str) -> tuple[float, str]:
        """When this clock began, and its text: the newest, but no "back-off" in the place of a reason."""
        began, kept = self.memory.get(clock, (self.now, ""))
        text = kept if kept and (not message or message.startswith("Back-off")) else message
        self.memory[clock] = (began, text)
        return began, text

    def _at_live(self, pod: Object) -> Observation:
        if (why := lost(pod)) is not None:
            return Observation(phase=Phase.UNKNOWN, cause=Cause.NODE_LOST, reason=why, message=_on_node(pod))
        ours = _container(pod, self.sight.container)
        if "running" in ours:
            return self._at_running(pod)
        for where, what in (("", ours), *_init_states(pod)):
            waiting = what.get("waiting") or {}
            reason = str(waiting.get("reason") or "")
            if row := TABLE.get((Where.WAITING, reason)):
                return self._from(row, reason, _named(where, waiting.get("message")))
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") == "False" and (row := TABLE.get((Where.SCHEDULED, str(scheduled.get("reason"))))):
            return self._from(row, str(scheduled["reason"]), str(scheduled.get("message") or ""))
        if scheduled.get("status") == "True" and condition(pod, "PodReadyToStartContainers").get("status") != "True":
            return self._at_creation(pod)
        return Observation(phase=Phase.WAITING, reason=str((ours.get("waiting") or {}).get("reason") or ""))

    def _at_running(self, pod: Object) -> Observation:
        """It runs; perhaps not for long, and then its runner doesn't know who told it to stop."""
        row, reason, message = self._why(pod, "", "")
        if row is not None:
            return Observation(phase=Phase.RUNNING, cause=row.cause, reason=reason, message=message)
        if pod.get("metadata", {}).get("deletionTimestamp"):
            message = "its pod is being deleted"
            return Observation(phase=Phase.RUNNING, cause=Cause.KILLED, reason="deleted", message=message)
        return Observation(phase=Phase.RUNNING)

    def _at_creation(self, pod: Object) -> Observation:
        """A node has it and makes neither mounts nor network: the events say why."""
        reason = "ContainerCreating"
        event = self._event(pod, "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
        text = str(event.get("message") or "")
        began, text = self._clock(reason, text)
        waited = self.now - began
        if waited < PATIENCE or not event:
            return Observation(phase=Phase.WAITING, reason=reason)
        own = str(pod["metadata"].get("labels", {}).get("job-name") or self._job.get("metadata", {}).get("name"))
        missing = re.search("not found|non-existent", text) is not None and f'"{own}" not found' not in text
        phase = Phase.ENDED if missing and waited >= MISSING else Phase.WAITING
        cause = Cause.CONFIG_ERROR if missing else Cause.START_FAILED
        return Observation(phase=phase, cause=cause, reason=str(event.get("reason")), message=text)

    def _at_ended(self, pod: Pod) -> Observation | None:
        """Return how a pod ended; None if it was deleted before the flow's container began, and so says nothing."""
        status = pod.object.get("status", {})
        ours = _container(pod.object, self.sight.container)
        terminated = ours.get("terminated") or {}
        code = terminated.get("exitCode")
        reason, message = str(terminated.get("reason") or ""), str(terminated.get("message") or "")
        row = TABLE.get((Where.TERMINATED, reason))
        if row is None:
            row, reason, message = self._why(pod.object, reason, message)
        if row is not None:
            return Observation(
                phase=Phase.ENDED, cause=row.cause, reason=reason, message=_plain(message), exit_code=code
            )
        if terminated:
            return _exited(code, reason, message, pod.object)
        if (failed := _failed_init(pod.object)) is not None:
            return failed
        if "running" in ours and (why := lost(pod.object)) is not None:
            return Observation(phase=Phase.GONE, cause=Cause.NODE_LOST, reason=why, message=_on_node(pod.object))
        if "running" in ours:
            return Observation(phase=Phase.GONE, cause=Cause.KILLED, reason="deleted", message=_DELETED)
        if status.get("phase") == "Failed":
            return Observation(
                phase=Phase.ENDED, cause=Cause.UNKNOWN, reason=str(status.get("reason") or "Failed"),
                message=str(status.get("message") or ""),
            )  # fmt: skip
        return None

    def _why(self, pod: Object, reason: str, message: str) -> tuple[Row | None, str, str]:
        """Why a pod was ended from outside, by the pod, its disruption, or the Job's deadline."""
        status = pod.get("status", {})
        disruption = condition(pod, "DisruptionTarget")
        for where, found in ((Where.POD, status), (Where.DISRUPTION, disruption), (Where.JOB, self._deadline())):
            known = str(found.get("reason") or "")
            if row := TABLE.get((where, known)):
                return row, known, str(found.get("message") or "")
        return None, reason, message

    def _deadline(self) -> Object:
        for kind in ("Failed", "FailureTarget"):
            found = condition(self._job, kind)
            if found.get("reason") == "DeadlineExceeded":
                return found
        return {}

    def _at_job(self) -> Observation:
        """Return the observation where no pod tells."""
        if self.sight.job is None:
            if self.sight.deleted:
                return Observation(
                    phase=Phase.GONE, cause=Cause.KILLED, reason="deleted", message="its Job was deleted"
                )
            message = "its Job is gone, and nothing is left that tells how it ended"
            return Observation(phase=Phase.GONE, cause=Cause.UNKNOWN, reason="gone", message=message)
        failed = condition(self._job, "Failed")
        if failed:
            reason = str(failed.get("reason") or "Failed")
            row = TABLE.get((Where.JOB, reason)) or Row(Cause.UNKNOWN)
            message = str(failed.get("message") or "")
            return Observation(phase=Phase.ENDED, cause=row.cause, reason=reason, message=message)
        if condition(self._job, "Complete"):
            return Observation(phase=Phase.ENDED, reason="Complete", exit_code=0)
        return self._without_pod()

    def _without_pod(self) -> Observation:
        """The Job is active, and there is no pod: quota, Pod Security, a ServiceAccount that isn't there."""
        event = self._event(self._job, "FailedCreate")
        began, text = self._clock("FailedCreate", str(event.get("message") or ""))
        waited = self.now - began
        if waited < PATIENCE or not event:
            return Observation(phase=Phase.WAITING)
        quota = QUOTA in text
        phase = Phase.ENDED if not quota and waited >= MISSING else Phase.WAITING
        cause = Cause.QUOTA if quota else Cause.CONFIG_ERROR
        return Observation(phase=phase, cause=cause, reason="FailedCreate", message=text)

    def _event(self, about: Object, *reasons: str) -> Object:
        """The newest event of these reasons on an object."""
        uid = about.get("metadata", {}).get("uid")
        found = [
            event
            for event in self.sight.events
            if event.get("reason") in reasons and event.get("involvedObject", {}).get("uid") == uid
        ]
        return max(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), default={})


def condition(about: Object, kind: str) -> Object:
    """A condition of an object that isn't False, or PodScheduled whatever it is; empty if there is none."""
    for one in about.get("status", {}).get("conditions") or ():
        if one.get("type") == kind and (one.get("status") != "False" or kind == "PodScheduled"):
            found: Object = one
            return found
    return {}


def terminated(pod: Object, container: str) -> bool:
    """Return True if the flow's container has ended, by name; whatever else runs in the pod."""
    return "terminated" in _container(pod, container)


def _over(pod: Object, container: str) -> bool:
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"} or terminated(pod, container)


def began(pod: Object, container: str) -> bool:
    """Return True if a container of the pod runs or has run: only then it may have printed something."""
    return not _container(pod, container).keys().isdisjoint({"running", "terminated"})


def _container(pod: Object, name: str) -> Object:
    """The state of a container of the pod by name: injectors may put theirs first."""
    for one in pod.get("status", {}).get("containerStatuses") or ():
        if one.get("name") == name:
            found: Object = {kind: state for kind, state in (one.get("state") or {}).items() if state is not None}
            return found
    return {}


def _init_states(pod: Object) -> Iterator[tuple[str, Object]]:
    for one in pod.get("status", {}).get("initContainerStatuses") or ():
        yield f"init container {one.get('name')}", one.get("state") or {}


def _failed_init(pod: Object) -> Observation | None:
    for where, state in _init_states(pod):
        ended = state.get("terminated") or {}
        code = ended.get("exitCode")
        if not code:
            continue
        reason = str(ended.get("reason") or "Error")
        row = TABLE.get((Where.TERMINATED, reason))
        cause = row.cause if row else Cause.KILLED if code == 137 else Cause.START_FAILED
        message = _named(where, _plain(str(ended.get("message") or "")) or f"ended with exit code {code}")
        return Observation(phase=Phase.ENDED, cause=cause, reason=reason, message=message, exit_code=code)
    return None


def lost(pod: Object) -> str | None:
    """The reason to think that its node doesn't answer. By itself no reason to end anything."""
    says = {one.get("type"): one.get("status") for one in pod.get("status", {}).get("conditions") or ()}
    if says.get("Ready") == "Unknown":
        return str(condition(pod, "Ready").get("reason") or "NodeLost")
    disruption = str(condition(pod, "DisruptionTarget").get("reason") or "")
    row = TABLE.get((Where.DISRUPTION, disruption))
    if row is not None and row.cause is Cause.NODE_LOST:
        return disruption
    if says.get("Ready") == "False" and says.get("ContainersReady") == "True" and "readinessGates" not in pod["spec"]:
        return "NodeNotReady"  # by its controller, also where it puts nothing out; the kubelet's word was well
    return "NodeLost" if pod.get("status", {}).get("reason") == "NodeLost" else None


def _on_node(pod: Object) -> str:
    return f"node {pod.get('spec', {}).get('nodeName') or '?'} doesn't answer"


def _named(where: str, message: Any) -> str:
    return f"{where}: {message or ''}" if where else str(message or "")


def _exited(code: int | None, reason: str, message: str, pod: Object) -> Observation:
    """An exit code, and the last words of the runner where it left any."""
    words = last_words(message)
    if words is not None and words[0] is Cause.PREEMPTED and pod.get("metadata", {}).get("deletionTimestamp"):
        words = Cause.KILLED, _DELETED
    if words is not None:
        return Observation(phase=Phase.ENDED, cause=words[0], reason=reason, message=words[1], exit_code=code)
    cause: Cause | None = None
    if code is not None and code > 128:
        cause = Cause.KILLED
    elif code:
        cause = Cause.START_FAILED
        message = message or "the runner ended before it could say why: see its last log lines"
    return Observation(phase=Phase.ENDED, cause=cause, reason=reason, message=message, exit_code=code)


def last_words(message: str) -> tuple[Cause, str] | None:
    """Cause and text that a runner left in its termination message; None if that isn't one of ours."""
    words = TerminationMessage.parse(message)
    if words is None:
        return None
    outcome = words.outcome()
    said = ": ".join(part for part in (outcome.reason, outcome.message) if part)
    return outcome.cause or Cause.UNKNOWN, said


def _plain(message: str) -> str:
    """A termination message for people: what our runner left there is JSON."""
    words = last_words(message)
    return message if words is None else words[1]
