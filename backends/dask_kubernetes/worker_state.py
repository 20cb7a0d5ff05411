"""Evaluation of a Dask worker's pod: its state in, an observation out. Pure.

The rules are those of a flow's pod (:mod:`backends.kubernetes.reasons`), applied to this pod alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.base import Observation, Phase
from backends.container.failed_starts import NO_WORD
from backends.kubernetes import reasons
from backends.kubernetes.timestamps import times
from dispatcher.runs.states import Cause

_DELETED = "its pod was deleted before it ran"


def observe(
    pod: reasons.Pod, events: Sequence[Mapping[str, Any]], clocks: reasons.Clocks, now: float
) -> tuple[Observation, reasons.Clocks]:
    """Return the observation of a worker, and the clocks to pass next time.

    Args:
        pod: the worker's, as the cache keeps it.
        events: about the pod.
        clocks: of the last observation; empty at the first.
        now: seconds, monotonic.
    """
    container = str(pod.object["spec"].get("container") or "")
    snapshot = reasons.Snapshot(job={}, pods=[pod], events=events, container=container)
    observation, clocks = reasons.observe(snapshot, clocks, now)
    observation = replace(observation, times=times(None, [pod], events, container))
    if pod.gone:
        observation = _gone(observation)
    return _in_words_of_a_worker(observation, pod.object), clocks


def _gone(observation: Observation) -> Observation:
    """Return the observation of a pod that exists no more: how it ended, or that it was deleted."""
    if observation.phase in {Phase.ENDED, Phase.GONE}:
        return replace(observation, phase=Phase.GONE)
    return Observation(
        phase=Phase.GONE, cause=Cause.KILLED, reason="deleted", message=_DELETED, times=observation.times
    )


def _in_words_of_a_worker(observation: Observation, pod: Mapping[str, Any]) -> Observation:
    """Return the observation with a message about a worker where the rules' own is about a runner, or is missing."""
    if observation.message.startswith(NO_WORD):
        _, quoted, line = observation.message.partition("; its last line: ")
        rest = f"{quoted}{line}" if quoted else ": see its last log lines"
        return replace(observation, message=f"dask worker ended with exit code {observation.exit_code}{rest}")
    if observation.cause is Cause.OOM_KILLED and not observation.message:
        limit = pod["spec"].get("memory")
        message = f"its container used more than its memory limit, {limit}"
        return replace(observation, message=message if limit else "its node ran out of memory; it has no memory limit")
    return observation
