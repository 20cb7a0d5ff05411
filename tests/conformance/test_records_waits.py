"""Why a run waits is stored with its event, in each implementation alike, and costs a write only if it changes."""

from __future__ import annotations

from functools import partial

from dispatcher.records.base import Records
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from dispatcher.runs.wait import Wait
from tests.conformance.specs import accept

WORDS = 'it\'s "full"\n\x1b[31m \ud800 ä'


def test_a_wait_is_stored_with_its_event(records: Records) -> None:
    record = accept(records)
    claimed = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    wait = Wait.of(Cause.UNSCHEDULABLE, "Unschedulable", WORDS)
    step = partial(infrastructure.note, wait=wait, visible=True, cause=wait.cause, message=wait.message)
    noted = records.runs.update(record.id, step)
    read, _ = records.runs.get(record.id)
    assert read.wait is not None
    assert (read.wait.cause, read.wait.reason) == (Cause.UNSCHEDULABLE, "Unschedulable")
    assert read.wait.message.startswith('it\'s "full"\n\x1b[31m ')
    assert (noted.version, read.last_cause) == (claimed.version + 1, Cause.UNSCHEDULABLE)
    assert records.runs.update(record.id, step).version == noted.version, "observed again: nothing is written"
    [event] = [event for event in records.events.of(record.id)[0] if event.kind is EventKind.WAITING]
    assert event.data["reason"] == "Unschedulable"
    over = records.runs.update(record.id, partial(infrastructure.note, wait=None, visible=True))
    assert over.wait is records.runs.get(record.id)[0].wait is None
    events = [event for event in records.events.of(record.id)[0] if event.kind is EventKind.WAITING]
    assert len({event.id for event in events}) == 2


def test_a_crash_report_is_stored_once_with_the_end(records: Records) -> None:
    record = accept(records)
    claimed = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    report = partial(infrastructure.crash_report, attempt=1, text=WORDS, lines=("last",))
    assert records.runs.update(record.id, report).version == claimed.version, "it hasn't ended"
    outcome = Outcome(cause=Cause.OOM_KILLED, message="out of memory")
    records.runs.update(record.id, partial(transitions.finish, epoch=claimed.epoch, outcome=outcome))
    records.runs.update(record.id, report)
    records.runs.update(record.id, partial(infrastructure.crash_report, attempt=1, text="another"))
    read = records.runs.get(record.id)[0].outcome
    assert read is not None
    assert read.report.startswith('it\'s "full"')
    assert (read.log_tail, read.message) == (("last",), "out of memory")
