"""Speculative claims: predict a run's record from runs with a similar doorbell, and claim it without reading it.

A wrong prediction is safe: the script compares kind and version, and fills in the times. The transition is rendered
once per kind of run (``templates.py``).
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import StepList
from dispatcher.records.redis.speculation.templates import (
    ACCEPTED,
    NOW,
    ChangeTemplate,
    is_plain,
    placeholder_time,
    placeholder_word,
)
from dispatcher.records.runs import ClaimTransition
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs.record import FIXED, Record
from dispatcher.runs.states import State

_MOST_PREDICTIONS = 1000

# Placeholders in a sample.
_ID, _HOLDER, _NONCE = (placeholder_word() for _ in range(3))
_ACCEPTED, _NOW = placeholder_time(), placeholder_time()


class _ClaimTemplate(NamedTuple):
    """The claim of runs of a kind by one owner: the change, and the record after it."""

    change: ChangeTemplate
    after: Record


class _Prediction(NamedTuple):
    """A kind of runs, and the record of one as accepted."""

    kind: str
    record: Record


class ClaimPredictor:
    """Learns which records runs with the same doorbell contents (``hint``) have."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._predictions: dict[str, _Prediction] = {}
        self._last_read = "", "", ""
        self._templates: dict[tuple[str, str], _ClaimTemplate] = {}
        self._unfit: set[str] = set()  # kinds whose claim is too large for a template

    def predict(self, run_id: str, hint: str) -> Snapshot | None:
        """Return the predicted run; None if no run like it was claimed, or its id can't stand in a template."""
        if (prediction := self._predictions.get(hint)) is None or not is_plain(run_id):
            return None
        return Snapshot(prediction.record.but(id=run_id), _NOW, prediction.kind)

    def note_read(self, run_id: str, hint: str, kind: str) -> None:
        """Note the doorbell contents and the kind of a run that was just read."""
        self._last_read = run_id, hint, kind

    def learn(self, record: Record) -> None:
        """Learn from the run that was read last and is claimed now, so that a doorbell alone teaches nothing.

        Runs with ``start_within`` are never predicted: the time of their acceptance isn't known.
        """
        run_id, hint, kind = self._last_read
        fresh = record.version == 1 and record.state is State.QUEUED and record.start_by is None
        if fresh and kind and kind not in self._unfit and run_id == record.id:
            if len(self._predictions) + len(self._unfit) >= _MOST_PREDICTIONS:
                self._predictions.clear()
                self._templates.clear()
                self._unfit.clear()
            accepted = record.but(created_at=_ACCEPTED, queued_at=_ACCEPTED, rung_at=_ACCEPTED)
            self._predictions[hint] = _Prediction(kind, accepted)

    def forget(self, kind: str) -> None:
        """Drop the predictions of a kind, after a wrong one."""
        self._predictions = {
            hint: prediction for hint, prediction in self._predictions.items() if prediction.kind != kind
        }

    def claim(
        self, snapshot: Snapshot, transition: ClaimTransition, *, owner: str, holder: str
    ) -> tuple[ChangeTemplate, list[str], Record] | None:
        """Return the change that claims a predicted run, the run's values in it, and its record after that.

        Returns:
            None if this run can't be claimed by a template.
        """
        if not is_plain(holder):
            return None
        template = self._templates.get((snapshot.kind, owner))
        if template is None:
            template = self._prepare(snapshot, transition, owner)
            self._templates[snapshot.kind, owner] = template
        if not template.change.fits:
            self._unfit.add(snapshot.kind)
            self.forget(snapshot.kind)
            return None
        run_id, nonce = snapshot.record.id, secrets.token_hex(8)
        values = template.change.values({"id": run_id, "holder": holder, "nonce": nonce})
        return template.change, values, template.after.but(id=run_id, holder=holder, change=nonce)

    def _prepare(self, snapshot: Snapshot, transition: ClaimTransition, owner: str) -> _ClaimTemplate:
        record = snapshot.record
        change = transition(record.but(id=_ID), _NOW, owner=owner, holder=_HOLDER)
        assert change is not None  # it is queued
        step_list = StepList(self._keys)
        after = step_list.add_change(change.marked(_NONCE), None)
        placeholders = {NOW: repr(_NOW), ACCEPTED: repr(_ACCEPTED), "id": _ID, "holder": _HOLDER, "nonce": _NONCE}
        expected = {"version": str(record.version), "kind": snapshot.kind}
        return _ClaimTemplate(ChangeTemplate(step_list.steps, placeholders, expected=expected, reply=FIXED), after)
