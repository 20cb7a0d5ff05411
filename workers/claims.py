"""The test of whether reports of runners are their attempts' own, by the token that only those have. For the engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from dispatcher.connect import connect
from dispatcher.errors import DispatcherError, Refused
from dispatcher.records.base import Records
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.record import Record
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings


def token_of(keys: KeyRing, record: Record) -> str:
    """The token of the attempt that stands in a record.

    Raises:
        Refused: it has no infrastructure of its own, or no longer.
        SealBroken: nobody here has the run's key.
    """
    if record.request is None:
        raise Refused(f"attempt {record.attempt} of run {record.id} is closed")
    return keys.token(record.id, record.attempt, record.request.get("epoch", 0), record.spec.key_id)


def claimant(keys: KeyRing, record: Record, entry: Mapping[str, str]) -> str:
    """Return who claimed the attempt that stands in a record, as a claim beside it says; empty if that isn't
    genuine."""
    try:
        report = Report.from_entry(entry, token_of(keys, record))
    except (DispatcherError, Refused, KeyError, ValueError, TypeError, RecursionError):
        return ""
    own = report.kind is ReportKind.CLAIMED and (report.run_id, report.attempt) == (record.id, record.attempt)
    return report.holder if own else ""


def open_records(settings: Settings, keys: KeyRing) -> Records:
    """The records, as the engine opens them: it knows whose a claim is.

    Raises:
        ServerUnavailable, InvalidSettings: as :func:`~dispatcher.connect.connect`.
    """
    records = connect(settings, keys)
    records.runs.claimant = partial(claimant, keys)
    return records
