"""Ends of runs that were claimed by a prediction and succeeded: their last change comes from a template.

Every other end is rendered by the table of transitions. The claim of such runs is in ``claim.py``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from dispatcher.records.events import ends_topic
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import MOST_NOTICED, StepList, compact_json
from dispatcher.records.redis.speculation.templates import (
    ACCEPTED,
    ChangeTemplate,
    is_plain,
    placeholder_time,
    placeholder_word,
)
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.value import Value

_MOST_TEMPLATES = 1000


class _FinishTemplate(NamedTuple):
    """The successful end of runs of a kind: the change, and the changed fields that are the same for all of them."""

    change: ChangeTemplate
    fields: Mapping[str, Any]


_SUCCESS = Outcome().__dict__

# Placeholders in a sample.
_ID, _HOLDER, _NONCE, _RESULT = (placeholder_word() for _ in range(4))
_ACCEPTED, _STARTED, _ENDED = (placeholder_time() for _ in range(3))


class FinishTemplates:
    """Templates for the ends of runs that were claimed by a prediction, by kind and everything else they depend on."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._templates: dict[Any, _FinishTemplate | None] = {}

    def render(
        self, record: Record, now: float, outcome: Outcome | None, exit_call: ExitCall | None
    ) -> tuple[ChangeTemplate, list[str], Record] | None:
        """Return the change of :func:`transitions.finish`, the run's values in it, and the record after it.

        Returns:
            None if there is no template.

        Args:
            record: the run, as it was claimed.
            now: the server's clock.
            outcome: how the attempt ended.
            exit_call: how its ``on_exit`` ended.
        """
        result = _small_result(record, outcome, exit_call)
        if result is None or not is_plain(record.id) or not is_plain(record.holder):
            return None
        spec = record.spec
        kind = spec.kind, spec.blobs, spec.result_ttl, record.owner, spec.retry.count > 0, record.verified
        if kind not in self._templates:
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            self._templates[kind] = self._prepare(record)
        template = self._templates[kind]
        if template is None:
            return None
        nonce = secrets.token_hex(8)
        words = {
            "id": record.id,
            "topic": ends_topic(record.id),
            "holder": record.holder,
            "nonce": nonce,
            "started": repr(record.started_at),
            "ended": repr(now),
            "expires": repr(now + spec.result_ttl),
            "result": result,
            "noticed": compact_json(result)[1:-1],
        }
        after = record.but(outcome=outcome, ended_at=now, change=nonce, **template.fields)
        return template.change, template.change.values(words), after

    def _prepare(self, record: Record) -> _FinishTemplate | None:
        """Return the template for runs like this one; None if they go on, or their notice has no room for a record."""
        before = record.but(
            id=_ID, holder=_HOLDER, created_at=_ACCEPTED, queued_at=_ACCEPTED, rung_at=_ACCEPTED, started_at=_STARTED
        )
        if record.verified:
            before.mark_verified()
        outcome = Outcome(result=(result := Value(codec="json", inline=_RESULT)))
        change = transitions.finish(before, _ENDED, epoch=before.epoch, outcome=outcome, exit_call=ExitCall.NONE)
        assert change is not None  # it runs
        step_list = StepList(self._keys)
        after = step_list.add_change(change.marked(_NONCE), None)
        text = _result_text(result)
        placeholders = {
            ACCEPTED: repr(_ACCEPTED),
            "id": _ID,
            "topic": ends_topic(_ID),
            "holder": _HOLDER,
            "nonce": _NONCE,
            "started": repr(_STARTED),
            "ended": repr(_ENDED),
            "expires": repr(_ENDED + record.spec.result_ttl),
            "result": text,
            "noticed": compact_json(text)[1:-1],
        }
        is_noticed = any(placeholders["noticed"] in str(word) for step in step_list.steps for word in step)
        if change.ring is not None or not is_noticed:
            return None
        own = {"outcome", "ended_at", "change"}
        old = before.__dict__
        changed = {name: new for name, new in after.__dict__.items() if name not in own and new != old.get(name)}
        template = ChangeTemplate(step_list.steps, placeholders, expected={"version": str(before.version)})
        return _FinishTemplate(template, changed) if template.fits else None


def _small_result(record: Record, outcome: Outcome | None, exit_call: ExitCall | None) -> str | None:
    """Return the outcome as text if it is only a small result; else None."""
    if record.key or record.exit_call is not ExitCall.NONE or exit_call not in {None, ExitCall.NONE}:
        return None
    if outcome is None or outcome.result is None or {**outcome.__dict__, "result": None} != _SUCCESS:
        return None
    text = _result_text(outcome.result)
    return text if len(text) <= MOST_NOTICED // 4 else None


def _result_text(result: Value) -> str:
    """Return an outcome that is only a result, as a record's field."""
    return json.dumps({"result": result.to_json()})
