"""Places, such as clusters, that live workers serve under their names: for ``status``, ``doctor``, ``explain``. Pure.

Workers whose settings name one place share its shards. If their service says that they serve two, each of them can see
only a part of the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dispatcher.inspection.finding import Finding, ok, problem
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.place_identity import Agreement, Identity, compare, read_identity, shown
from dispatcher.runs.record import Record

#: The name in :attr:`~dispatcher.records.workers.WorkerInfo.data`: family of shards → identity of its place.
PLACES = "places"

_REMEDY = "give each cluster a name of its own in the settings of its workers"


def places_of(worker: WorkerInfo) -> dict[str, Identity]:
    """Return the places that a worker supervises, by their families; without an identity where that isn't known."""
    announced = worker.data.get(PLACES)
    identities = announced if isinstance(announced, Mapping) else {}
    return {family: read_identity(identities.get(family)) for family in worker.data.get("supervises", ())}


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


def whereabouts(record: Record, workers: Sequence[WorkerInfo]) -> list[str]:
    """Say where the infrastructure of a run is, if a worker that supervises it serves another place of that name."""
    family, identity = _place_of(record)
    if not identity:
        return []
    supervisors = [worker for worker in workers if family in places_of(worker)]
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
