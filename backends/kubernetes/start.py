"""Why an attempt hasn't started: evaluation of a Job and a pod whose flow container doesn't run yet. Pure.

Used by :mod:`backends.kubernetes.reasons`. States and clocks decide; events add texts, and tell what no state does:
that an image is being pulled, or why a node can't make a volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.base import Observation, Phase
from backends.kubernetes.pod_state import Object, condition, container_state, init_statuses, is_side_car
from backends.kubernetes.reason_table import (
    EVENT_GRACE,
    FOREIGN_GATE,
    IMAGE_NOT_FOUND_TIMEOUT,
    INIT_RUNNING,
    MISSING,
    NO_NODE,
    OBJECT_MISSING,
    QUOTA,
    QUOTA_USED,
    SECRET_GRACE,
    SECRET_MISSING,
    START_GRACE,
    TABLE,
    WARNING_GRACE,
    Field,
    Rule,
)
from backends.kubernetes.suspension import QUEUE

#: Events about a pod whose node can't make its volumes, network or sandbox.
_CREATION = ("FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedCreatePodSandBox")

#: Events about a pod whose resource claims can't be made, without which no scheduler looks at it.
_CLAIMS = ("FailedResourceClaimCreation",)

#: Events that follow a node's mounts and network: an earlier failure of these is over.
_PROGRESS = ("Pulling", "Pulled", "Created", "Started")

#: What is said of a Job without a pod and without an event.
_NO_PARALLELISM = "its Job's spec.parallelism was set to 0, so that it gets no pod"
_NO_POD = "the Job controller hasn't created its pod yet, and says nothing about it"

_CRASH_LOOP = "CrashLoopBackOff"
_GATED = "SchedulingGated"
_SUSPENDED = "Suspended"


@dataclass
class Start:
    """Evaluation of what one attempt waits for.

    Attributes:
        job: the Job; empty if there is none.
        events: about the Job and its pods.
        container: name of the flow's container.
        clocks: start of each clock (seconds, monotonic) with its text; extended by an evaluation.
        now: seconds, monotonic.
    """

    job: Object
    events: Sequence[Object]
    container: str
    clocks: dict[str, tuple[float, str]]
    now: float

    def of_suspended_job(self, *, ran: bool) -> Observation:
        """Return the observation of a suspended Job: a quota queue holds it, unless somebody else suspended it.

        ``ran``: its flow had started, so that its pod was deleted.
        """
        spec, name = self.job.get("spec", {}), self.job.get("metadata", {}).get("name")
        if manager := spec.get("suspendedBy"):
            resume = f'`kubectl patch job {name} -p \'{{"spec":{{"suspend":false}}}}\'` lets it go on'
            message = f"its Job {name} is suspended, not by a quota queue but by {manager}: {resume}"
            if ran:
                message = f"its Job {name} was suspended while it ran, not by a quota queue but by {manager}"
            return Observation(phase=Phase.WAITING, reason=_SUSPENDED, message=message, suspended=True)
        held = "a quota queue suspended its Job while it ran" if ran else "a quota queue holds it: its Job is suspended"
        return self._apply(TABLE[Field.JOB, _SUSPENDED], _SUSPENDED, held)

    def of_pod(self, pod: Object) -> Observation:
        """Return the observation of a pod whose flow container hasn't started."""
        for observation in self._of_parts(pod):
            if observation is not None:
                return observation
        flow = container_state(pod, self.container)
        placed = "placed" if pod.get("spec", {}).get("nodeName") else "unplaced"
        reason = str((flow.get("waiting") or {}).get("reason") or "")
        grace = WARNING_GRACE if self._newest_warning(pod) else START_GRACE
        return self._without_reason(placed, reason, lambda: self._stalled(pod), grace=grace)

    def without_pod(self) -> Observation:
        """Return the observation of an active Job without a pod: quota, Pod Security, a missing ServiceAccount."""
        event = self._newest_event(self.job, "FailedCreate")
        if not event:
            none_wanted = self.job.get("spec", {}).get("parallelism") == 0
            return self._without_reason("no pod", "", lambda: _NO_PARALLELISM if none_wanted else _NO_POD)
        text = str(event.get("message") or "")
        rule = QUOTA_USED if QUOTA in text else TABLE[Field.EVENT, "FailedCreate"]
        return self._apply(rule, "FailedCreate", text, grace=EVENT_GRACE)

    def _of_parts(self, pod: Object) -> Iterator[Observation | None]:
        """Yield what each part of the pod says: the first that says something counts."""
        yield self._of_waiting_containers(pod)
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") != "True":
            yield self._of_event(pod, self._newest_event(pod, *_CLAIMS))
            yield self._of_unscheduled(pod, scheduled)
            return
        yield self._of_running_init(pod)  # first: an event that a pull has ended may be lost
        yield self._of_pull(pod)
        if condition(pod, "PodReadyToStartContainers").get("status") != "True":
            yield self._of_creation(pod)

    def _of_waiting_containers(self, pod: Object) -> Observation | None:
        flow = container_state(pod, self.container)
        statuses = list(init_statuses(pod))
        for status, state in (({}, flow), *((status, status.get("state") or {}) for status in statuses)):
            waiting = state.get("waiting") or {}
            reason = str(waiting.get("reason") or "")
            if reason != _CRASH_LOOP and (rule := TABLE.get((Field.WAITING, reason))):
                prefix = init_name(pod, status) if status else ""
                return self._apply(rule, reason, prefixed(prefix, waiting.get("message")))
        for status in statuses:
            if loop := _crash(pod, status):
                return self._apply(TABLE[Field.WAITING, _CRASH_LOOP], _CRASH_LOOP, loop, grace=EVENT_GRACE)
        return None

    def _of_unscheduled(self, pod: Object, scheduled: Object) -> Observation | None:
        reason, message = str(scheduled.get("reason") or ""), str(scheduled.get("message") or "")
        if not scheduled and (
            node := pod.get("spec", {}).get("nodeName")
        ):  # a scheduler sets both, a node the condition
            return self._apply(NO_NODE, "NodeName", unknown_node(node), grace=EVENT_GRACE)
        if reason == _GATED:
            gates = [str(gate.get("name")) for gate in pod.get("spec", {}).get("schedulingGates") or ()]
            if foreign := [gate for gate in gates if QUEUE not in gate]:
                message = f"its pod has scheduling gates, which must be taken away: {', '.join(foreign)}"
                return self._apply(FOREIGN_GATE, reason, message)
            message = "a quota queue holds it: its pod has a scheduling gate"
        rule = TABLE.get((Field.SCHEDULED, reason))
        return None if rule is None else self._apply(rule, reason, message)

    def _of_pull(self, pod: Object) -> Observation | None:
        """Return the observation of an image that is being pulled: no event says yet that it was."""
        pulling, pulled = self._newest_event(pod, "Pulling"), self._newest_event(pod, "Pulled")
        since, image = _time(pulling), _quoted(pulling)
        if not since or _time(pulled) > since or (_time(pulled) == since and image == _quoted(pulled)):
            return None
        message = f"image {image} is being pulled since {_for_people(since)}"
        return self._apply(TABLE[Field.EVENT, "Pulling"], "Pulling", message, grace=EVENT_GRACE)

    def _of_running_init(self, pod: Object) -> Observation | None:
        """Return the observation of an init container that keeps the flow's container from being started."""
        for status in init_statuses(pod):
            running = (status.get("state") or {}).get("running")
            side_car = is_side_car(pod, status)
            if running is None or (side_car and status.get("started")):
                continue
            since = f"runs since {_for_people(str(running.get('startedAt') or ''))}"
            message = f"{init_name(pod, status)} {since}"
            if side_car:
                probe = str(self._newest_event(pod, "Unhealthy").get("message") or "").strip()
                message += f", and its startup probe hasn't succeeded{f' ({probe})' if probe else ''}"
            return self._apply(INIT_RUNNING, f"init/{status.get('name')}", message, grace=EVENT_GRACE)
        return None

    def _of_creation(self, pod: Object) -> Observation | None:
        """Return the observation of a pod whose node can't make its mounts or network: the events say why."""
        event = self._newest_event(pod, *_CREATION)
        is_over = bool(event) and _time(self._newest_event(pod, *_PROGRESS)) > _time(event)
        return None if is_over else self._of_event(pod, event)

    def _of_event(self, pod: Object, event: Object) -> Observation | None:
        """Return the observation of an event about a pod that hasn't started; None if there is none."""
        if not event:
            return None
        reason, text = str(event.get("reason")), str(event.get("message") or "")
        if f'secret "{self.job.get("metadata", {}).get("name")}" not found' in text:  # it has the name of its Job
            return self._without_secret(reason, text)
        rule = OBJECT_MISSING if MISSING.search(text) is not None else TABLE[Field.EVENT, reason]
        return self._apply(rule, reason, text, grace=EVENT_GRACE)

    def _without_secret(self, reason: str, text: str) -> Observation:
        """Return the observation of a pod that can't mount the attempt's own Secret."""
        message = f"the Secret with its runner's credentials is missing, and is created again: {text}"
        observation = self._apply(SECRET_MISSING, reason, message, grace=SECRET_GRACE)
        incomplete = observation.cause is not None and observation.phase is Phase.WAITING
        return replace(observation, incomplete=incomplete)

    def _stalled(self, pod: Object) -> str:
        """Return the sentence about a pod of which no state says why it doesn't start: its last warning, or a guess."""
        spec = pod.get("spec", {})
        node = spec.get("nodeName")
        if warning := self._newest_warning(pod):
            hangs = f"node {node} hasn't started its container yet" if node else "its pod isn't on a node yet"
            return f"{hangs}; its last warning: {warning.get('reason')}: {str(warning.get('message') or '').strip()}"
        if not node:
            scheduler = spec.get("schedulerName") or "default-scheduler"
            return f"no scheduler has looked at its pod: does one named {scheduler} run?"
        return f"node {node} hasn't started its container yet, and says nothing about it"

    def _without_reason(
        self, step: str, reason: str, message: Callable[[], str], *, grace: float = START_GRACE
    ) -> Observation:
        """Return the observation of a start that makes no progress, where nothing says why. Each step has a clock."""
        started, _ = self.clocks.setdefault(step, (self.now, ""))
        text = message() if self.now - started >= grace else ""
        return Observation(phase=Phase.WAITING, reason=reason, message=text)

    def _apply(self, rule: Rule, reason: str, message: str, *, grace: float = 0.0) -> Observation:
        """Return the observation of a rule: the attempt waits, or ends because its clock has run out.

        For ``grace`` seconds neither cause nor message is reported.
        """
        final_after = rule.final_after
        started, text = self._clock(rule.clock or reason, message)
        waited = self.now - started
        if waited < grace:
            return Observation(phase=Phase.WAITING, reason=reason, paused=rule.paused)
        if rule.clock == "image":  # its reasons alternate; the first one is kept
            _, reason = self.clocks.setdefault("reason of image", (self.now, reason))
            final_after = IMAGE_NOT_FOUND_TIMEOUT if "not found" in text else None
        phase = Phase.ENDED if final_after is not None and waited >= final_after else Phase.WAITING
        return Observation(phase=phase, cause=rule.cause, reason=reason, message=text, paused=rule.paused)

    def _clock(self, clock: str, message: str) -> tuple[float, str]:
        """Return the start of a clock and its text: the newest, but never a "Back-off" in the place of a reason."""
        started, text = self.clocks.get(clock, (self.now, ""))
        if not text or (message and not message.startswith("Back-off")):
            text = message
        self.clocks[clock] = (started, text)
        return started, text

    def _newest_event(self, about: Object, *reasons: str) -> Object:
        """Return the newest event of these reasons about an object; empty if there is none."""
        if not self.events:
            return {}
        events = [event for event in self._events_of(about) if event.get("reason") in reasons]
        return max(events, key=_time, default={})

    def _newest_warning(self, pod: Object) -> Object:
        """Return the newest warning about a pod; empty if there is none, or if its node has got further since."""
        warnings = [event for event in self._events_of(pod) if event.get("type") == "Warning"]
        newest: Object = max(warnings, key=_time, default={})
        return {} if _time(self._newest_event(pod, *_PROGRESS)) > _time(newest) else newest

    def _events_of(self, about: Object) -> Iterator[Object]:
        uid = about.get("metadata", {}).get("uid")
        return (event for event in self.events if event.get("involvedObject", {}).get("uid") == uid)


def prefixed(prefix: str, message: Any) -> str:
    """Return a message with the name of the container that it is about; an empty name is the flow's."""
    return f"{prefix}: {message or ''}" if prefix else str(message or "")


def init_name(pod: Object, status: Object) -> str:
    """Return what people call the init container of a status."""
    return f"{'side-car' if is_side_car(pod, status) else 'init container'} {status.get('name')}"


def _crash(pod: Object, status: Object) -> str:
    """Return how a side-car ends again and again before it has started; empty if it doesn't."""
    state = status.get("state") or {}
    waits = (state.get("waiting") or {}).get("reason") == _CRASH_LOOP
    last = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    if status.get("started") or not (waits or (last and is_side_car(pod, status))):
        return ""
    ends = f" with exit code {last.get('exitCode')} ({last.get('reason')})" if last else ""
    text = f": {last['message']}" if last and last.get("message") else "; see its log"
    return f"{init_name(pod, status)} is started again and again, and ends{ends}{text}"


def unknown_node(node: Any) -> str:
    """Return the sentence about a pod whose spec names a node that doesn't take it."""
    return f"its pod names node {node} (spec.nodeName), which hasn't taken it: does that node exist?"


def _time(event: Mapping[str, Any]) -> str:
    """Return when an event happened last; empty if it doesn't say."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _for_people(time: str) -> str:
    """Return a time of the API as people read it."""
    return time.replace("T", " ").replace("Z", " UTC") or "a time that isn't known"


def _quoted(event: Mapping[str, Any]) -> str:
    """Return the first quoted word of an event's message: the image, in those about images."""
    return [*str(event.get("message") or "").split('"'), ""][1]
