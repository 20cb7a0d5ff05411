"""The features that a spec requires of the release that runs it, so that two releases can run side by side. Pure.

A field that changes what may happen (a limit, a mask, a bundle) is a feature, and specs that use it name it in
``requires``. A worker that doesn't know the feature would run the flow without the limit, so it leaves it to others.
"""

from __future__ import annotations

from dispatcher.errors import Refused
from dispatcher.runs.record import Record
from dispatcher.runs.spec import FRESH_PROCESS


def wants_fresh_process(record: Record) -> bool:
    """Return True if a run may not share a process with others, one after the other."""
    return FRESH_PROCESS in record.spec.requires


class UnknownFeature(Refused):
    """The run requires a feature that this release doesn't know."""


def check_features(record: Record) -> None:
    """Check that this release knows all features that a run requires.

    Raises:
        UnknownFeature: it doesn't; names the features.
    """
    if unknown := record.spec.unknown_features:
        raise UnknownFeature(f"run {record.id} requires {', '.join(unknown)}, which a newer release knows")
