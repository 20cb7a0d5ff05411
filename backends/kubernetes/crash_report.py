"""Crash report of an attempt, from what its cluster still tells: states of its containers, warnings, last lines.

The states and the warnings are in the watches' caches. Only last lines cost requests, one per container, within
:data:`READ_WITHIN` seconds for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import CrashReport
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.container_logs import last_lines
from backends.kubernetes.pod_security import BARE_JOB
from backends.kubernetes.reasons import Pod
from dispatcher.errors import Permanent, Transient
from dispatcher.runner.container.termination_message import TerminationMessage

#: Bytes of a report, and of the texts in it that the cluster chooses.
MAX_BYTES = 8192
MAX_TEXT = 400

#: Most containers, warnings, and last lines of a container in a report.
MAX_CONTAINERS = 10
MAX_WARNINGS = 10
MAX_LINES = 20

#: Seconds from which on no further container's lines are read.
READ_WITHIN = 10.0

#: Reasons of warnings about what comes before a pod's containers.
_MOUNT_FAILURES = ("FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedCreatePodSandBox")

_STATUSES = (("containerStatuses", ""), ("initContainerStatuses", "init/"))

Lines = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Read:
    """The last lines of a container, or the reason why they can't be read."""

    lines: tuple[str, ...] = ()
    problem: str = ""

    @property
    def shown(self) -> Sequence[str]:
        """The lines, or the reason in their place."""
        return (f"[they can't be read: {self.problem}]",) if self.problem else self.lines


def crash_report(
    api: Api,
    namespace: str,
    pods: Sequence[Pod],
    events: Sequence[Mapping[str, Any]],
    *,
    container: str,
    lines_known: bool,
) -> CrashReport:
    """Return the report of an attempt.

    Args:
        api: the cluster.
        namespace: of the pods.
        pods: those of the attempt.
        events: about its Job and its pods.
        container: the flow's container.
        lines_known: its last lines are known already, and aren't read.
    """
    read: dict[str, Read] = {}
    until = time.monotonic() + READ_WITHIN
    for pod in pods[-1:]:  # the others were replaced before they ran anything
        for shown, name in _started(pod.object):
            if not pod.gone and time.monotonic() < until and not (lines_known and name == container):
                read[shown] = _read(api, namespace, str(pod.object["metadata"]["name"]), name)
    text = rendered(pods, events, {name: tail.shown for name, tail in read.items()})
    if all(pod.gone or pod.object["metadata"].get("deletionTimestamp") for pod in pods):
        text = _truncated("\n".join(filter(None, [_end_of_namespace(api, namespace), text])), MAX_BYTES)
    return CrashReport(text=text, lines=read.get(container, Read()).lines)


def _end_of_namespace(api: Api, namespace: str) -> str:
    """Say that a namespace is being deleted, with all that is in it; empty if it isn't, or if nobody can tell."""
    try:
        api.dry_run(namespace, "jobs", BARE_JOB)
    except ApiError as error:
        if error.status == 404 or (error.status == 403 and "being terminated" in error.message):
            return f"namespace {namespace} was deleted, with all that was in it"
    except (Unclear, Unreachable):
        pass
    return ""


def rendered(pods: Sequence[Pod], events: Sequence[Mapping[str, Any]], read: Lines) -> str:
    """Return the report as text of at most :data:`MAX_BYTES`. Pure. Each container gets its share for its lines."""
    head = _truncated("\n".join([*_states(pods), *_warnings(_relevant(pods, events))]), MAX_BYTES // 2)
    parts = [head] if head else []
    shown = {name: lines for name, lines in read.items() if lines}
    for number, (name, lines) in enumerate(shown.items()):
        left = MAX_BYTES - len("\n".join(parts).encode()) - 1
        title = f"last lines of {name}:"
        room = left // (len(shown) - number) - len(title.encode()) - 2
        parts.append("\n".join([title, *_tail(lines, room)]))
    return _truncated("\n".join(parts), MAX_BYTES)


def _started(pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the containers of a pod that may have a log, as names to show and names."""
    started = []
    for kind, prefix in _STATUSES:
        for status in pod.get("status", {}).get(kind) or ():
            state = status.get("state") or {}
            if state.get("running") is not None or state.get("terminated") is not None or status.get("lastState"):
                started.append((f"{prefix}{status.get('name')}", str(status.get("name"))))
    return started[:MAX_CONTAINERS]


def _read(api: Api, namespace: str, pod: str, container: str) -> Read:
    try:
        return Read(lines=last_lines(api, namespace, pod, container))
    except (Permanent, Transient) as error:
        return Read(problem=str(error))


def _states(pods: Sequence[Pod]) -> Iterator[str]:
    for pod in pods:
        status, spec = pod.object.get("status", {}), pod.object.get("spec", {})
        node = f" on node {spec['nodeName']}" if spec.get("nodeName") else ""
        reason = f", {_line(status['reason'])}" if status.get("reason") else ""
        message = f": {_line(status['message'])}" if status.get("message") else ""
        gone = ", gone" if pod.gone else ""
        yield f"pod {pod.object['metadata'].get('name')}{node}: {status.get('phase') or '?'}{reason}{gone}{message}"
        for kind, prefix in _STATUSES:
            for container in (status.get(kind) or ())[:MAX_CONTAINERS]:
                suffix = " when its pod was last seen" if pod.gone and _runs(container) else ""
                yield f"  {prefix}{container.get('name')}: {_state(container.get('state') or {})}{suffix}"


def _runs(container: Mapping[str, Any]) -> bool:
    return (container.get("state") or {}).get("running") is not None


def _state(state: Mapping[str, Any]) -> str:
    """Return a container's state in one line. A runner's own message, JSON, is the cause's, and left out."""
    for name in ("waiting", "running", "terminated"):
        facts = state.get(name)
        if facts is None:
            continue
        message = str(facts.get("message") or "")
        parts = [name, _line(facts.get("reason"))]
        parts += [f"exit code {facts['exitCode']}"] if facts.get("exitCode") is not None else []
        parts += [f"signal {facts['signal']}"] if facts.get("signal") else []
        parts += [] if TerminationMessage.parse(message) is not None else [_line(message)]
        return ", ".join(part for part in parts if part)
    return "not started"


def _line(text: Any) -> str:
    """Return a text of the cluster's in one line, truncated: it can't look like another part of the report."""
    return " ".join(str(text or "")[: 10 * MAX_TEXT].split())[:MAX_TEXT]


def _relevant(pods: Sequence[Pod], events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events without failed mounts of pods whose containers have started: those succeeded since."""
    mounted = {str(pod.object["metadata"].get("uid")) for pod in pods if _started(pod.object)}
    return [
        event
        for event in events
        if event.get("reason") not in _MOUNT_FAILURES or (event.get("involvedObject") or {}).get("uid") not in mounted
    ]


def _warnings(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    warnings = [event for event in events if event.get("type") == "Warning"]
    if warnings:
        yield "warnings:"
    for event in warnings[-MAX_WARNINGS:]:
        yield f"  {_line(event.get('reason'))}: {_line(event.get('message'))}"


def _tail(lines: Sequence[str], room: int) -> list[str]:
    """Return the last of these lines that fit into ``room`` bytes, indented."""
    kept: list[str] = []
    for line in reversed(lines[-MAX_LINES:]):
        shown = f"  {line[:MAX_TEXT]}"
        room -= len(shown.encode(errors="replace")) + 1
        if room < 0:
            break
        kept.append(shown)
    return kept[::-1]


def _truncated(text: str, size: int) -> str:
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= size else data[: size - 3].decode(errors="ignore") + "…"
