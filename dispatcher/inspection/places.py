"""Places, such as clusters, that live workers serve under their names: for ``status``, ``doctor``, ``explain``. Pure.

Workers whose settings name one place share its shards. If their service says that they serve two, each of them can see
only a part of the runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dispatcher.inspection.finding import Finding, ok, problem, warning
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.place_identity import Agreement, Identity, compare, read_identity, shown
from dispatcher.runs.record import Record

#: The name in :attr:`~dispatcher.records.workers.WorkerInfo.data`: family of shards → identity of its place.
PLACES = "places"

_ONE_NAME = "give each cluster one name in the settings of all its workers"
_REMEDY = "give each cluster a name of its own in the settings of its workers"


def places_of(worker: WorkerInfo) -> dict[str, Identity]:
    """Return the places that a worker supervises, by their families; without an identity where that isn't known."""
    announced = worker.data.get(PLACES)
    identities = announced if isinstance(announced, Mapping) else {}
    return {family: read_identity(identities.get(family)) for family in worker.data.get("supervises", ())}


def place_variable(family: str) -> str:
    """Return the variable with which a worker serves the place of a family of shards, as ``NAME=place``; empty if the
    family names no place."""
    place = family.partition("@")[2]
    return f"{_variables(family)}CLUSTER={shlex.quote(place)}" if place else ""


def place_rows(workers: Sequence[WorkerInfo]) -> list[tuple[str, str, str]]:
    """Return the places with an identity that live workers serve: name, identity, and the ids of the workers."""
    return [
        (family, shown(identity), ", ".join(worker.id for worker in group))
        for family in sorted({family for worker in workers for family in places_of(worker)})
        for identity, group in _groups(family, workers)
    ]


def examine_places(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Check that workers that serve one place by its name serve one place indeed."""
    for family in sorted({family for worker in workers for family in places_of(worker)}):
        groups = _groups(family, workers)
        if len(groups) > 1:
            text = "; ".join(f"{_names(group)} the one with {shown(identity)}" for identity, group in groups)
            remedy = f"{_REMEDY}, or correct a worker's credential file"
            yield problem("clusters", f"several are served as {family}: {text}", remedy)
        elif groups:
            yield ok("clusters", f"{family} is the one with {shown(groups[0][0])}")
    yield from _several_names(workers)


def whereabouts(record: Record, workers: Sequence[WorkerInfo]) -> list[str]:
    """Say where the infrastructure of a run is, if a worker that supervises it serves another place of that name."""
    family, identity = _place_of(record)
    if not identity:
        return []
    supervisors = [worker for worker in workers if family in places_of(worker)]
    if not supervisors:
        return _other_names(family, identity, workers)
    agreements = {worker.id: compare(identity, places_of(worker)[family]) for worker in supervisors}
    others = [worker for worker in supervisors if agreements[worker.id] is Agreement.DIFFERENT]
    blind = [worker for worker in supervisors if agreements[worker.id] is Agreement.UNCLEAR]
    right = Agreement.SAME in agreements.values()
    if not others and (right or not blind):
        return []
    lines = [f"Its infrastructure is on the cluster with {shown(identity)}."]
    for worker in others:
        lines.append(f"Worker {worker.id} serves, also as {family}, the one with {shown(places_of(worker)[family])}.")
    if right:
        return [*lines, f"Remedy: {_REMEDY}."]
    for worker in blind:
        lines.append(
            f"Worker {worker.id} can't tell yet which one it serves; `dispatcher doctor` says if it may read it."
        )
    return [*lines, "Remedy: start a worker for the former; until then nothing is concluded about the run."]


def _several_names(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Warn of places that workers of one backend serve under several names: a run is watched under one of them."""
    rows = [
        (family, identity, group)
        for family in sorted({family for worker in workers for family in places_of(worker)})
        for identity, group in _groups(family, workers)
    ]
    for index, (family, identity, group) in enumerate(rows):
        for other, other_identity, others in rows[index + 1 :]:
            if _backend(family) == _backend(other) and compare(identity, other_identity) is Agreement.SAME:
                text = (
                    f"{_names(group)} the one with {shown(identity)} as {family}, and {_names(others)} it as {other}: "
                    "a run is watched only under the name with which it was created"
                )
                yield warning("clusters", text, _ONE_NAME)


def _other_names(family: str, identity: Identity, workers: Sequence[WorkerInfo]) -> list[str]:
    """Say that workers serve the place of a run under another name, where none does under its own."""
    lines = [
        f"Worker {worker.id} serves its cluster as {other}; the run was created for {family}, and is watched only by "
        "workers of that name."
        for worker in workers
        for other, place in places_of(worker).items()
        if other != family and _backend(other) == _backend(family) and compare(identity, place) is Agreement.SAME
    ]
    if not lines:
        return []
    variable = place_variable(family)
    start = f"with {variable}" if variable else f"without {_variables(family)}CLUSTERS"
    return [*lines, f"Remedy: start a worker {start}, and {_ONE_NAME}."]


def _variables(family: str) -> str:
    """Return how the variables of a family's backend begin: its settings have the last word of its name."""
    return f"DISPATCHER__{_backend(family).rpartition('-')[2].upper()}__"


def _backend(family: str) -> str:
    return family.partition("@")[0]


def _groups(family: str, workers: Sequence[WorkerInfo]) -> list[tuple[Identity, list[WorkerInfo]]]:
    """Return the workers of a family that know their place, in groups that don't disagree, each with what its members
    know together."""
    groups: list[tuple[Identity, list[WorkerInfo]]] = []
    identities = [(worker, places_of(worker).get(family)) for worker in workers]
    for worker, identity in sorted(identities, key=lambda item: -len(item[1] or ())):
        if not identity:
            continue
        agreed = [group for group in groups if compare(group[0], identity) is Agreement.SAME]
        agreed = agreed or [group for group in groups if compare(group[0], identity) is Agreement.UNCLEAR]
        if agreed:
            merged = ({**identity, **agreed[0][0]}, [*agreed[0][1], worker])
            groups[groups.index(agreed[0])] = merged
        else:
            groups.append((identity, [worker]))
    return groups


def _names(workers: Sequence[WorkerInfo]) -> str:
    return f"{', '.join(worker.id for worker in workers)} {'serves' if len(workers) == 1 else 'serve'}"


def _place_of(record: Record) -> tuple[str, dict[str, str]]:
    """Return family and identity of the place where a run's infrastructure is, or was requested."""
    request = record.request if isinstance(record.request, Mapping) else {}
    stored: Mapping[str, Any] = record.handle if isinstance(record.handle, Mapping) else request
    body = request.get("body")
    identity = stored.get("identity") or (body.get("identity") if isinstance(body, Mapping) else None)
    return str(stored.get("shard", "")).rpartition("/")[0], read_identity(identity)
