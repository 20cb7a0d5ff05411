"""Authentication of runners' claims by the token that only their attempt has. For all parts of a worker."""

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
    """Return the token of a record's current attempt.

    Raises:
        Refused: the attempt has no infrastructure, or no longer.
        SealBroken: the run's key isn't here.
    """
    if record.request is None:
        raise Refused(f"attempt {record.attempt} of run {record.id} is closed")
    return keys.token(record.id, record.attempt, record.request.get("epoch", 0), record.spec.key_id)


def claimant(keys: KeyRing, record: Record, entry: Mapping[str, str]) -> str:
    """Return the holder of a record's current attempt as a claim names it; empty if the claim isn't authentic."""
    try:
        report = Report.from_entry(entry, token_of(keys, record))
    except (DispatcherError, Refused, KeyError, ValueError, TypeError, RecursionError):
        return ""
    authentic = report.kind is ReportKind.CLAIMED and (report.run_id, report.attempt) == (record.id, record.attempt)
    return report.holder if authentic else ""


def open_records(settings: Settings, keys: KeyRing) -> Records:
    """Open the records as workers do, able to authenticate claims.

    Raises:
        ServerUnavailable, InvalidSettings: as :func:`~dispatcher.connect.connect`.
    """
    records = connect(settings, keys)
    records.runs.claimant = partial(claimant, keys)
    return records
