"""The termination message, which a container leaves in Kubernetes' termination log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.runner.container.termination_message import MOST, TerminationMessage
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause

FAILED = Outcome(cause=Cause.USER_ERROR, reason="ValueError", message="no", traceback="Traceback …\nValueError: no\n")


def test_state_and_cause_come_first_and_no_result() -> None:
    text = TerminationMessage.of(FAILED, run="r1", attempt=2, on_exit=ExitCall.CALLED).to_json()
    assert text.startswith('{"state":"FAILED","cause":"user_error","reported":false,')
    assert "result" not in json.loads(text)
    assert TerminationMessage.parse(text) == TerminationMessage.of(FAILED, run="r1", attempt=2, on_exit=ExitCall.CALLED)


@given(st.text(), st.text(), st.text(), st.integers(0, 6))
def test_they_always_fit(reason: str, message: str, trace: str, many: int) -> None:
    outcome = Outcome(cause=Cause.USER_ERROR, reason=reason, message=message * 4**many, traceback=trace * 300)
    text = TerminationMessage.of(outcome, run="r" * 64, attempt=12).to_json()
    assert len(text.encode("utf-8", "replace")) <= MOST
    assert TerminationMessage.parse(text) is not None


def test_a_long_traceback_keeps_its_end() -> None:
    outcome = Outcome(cause=Cause.USER_ERROR, message="m" * 5000, traceback="\n".join(map(str, range(5000))))
    text = TerminationMessage.of(outcome, run="r", attempt=1).to_json()
    parsed = TerminationMessage.parse(text)
    assert parsed is not None
    assert parsed.traceback.startswith("…")
    assert parsed.traceback.endswith("4998\n4999")
    assert parsed.message.endswith("m…")
    assert len(text.encode()) > MOST - 100


def test_an_unreported_success_is_none() -> None:
    outcome = TerminationMessage.of(Outcome(), run="r", attempt=1).outcome()
    assert outcome.cause is Cause.RESULT_MISSING
    assert outcome.reason == "SUCCEEDED"
    assert TerminationMessage.of(FAILED, run="r", attempt=1).outcome() == FAILED


@pytest.mark.parametrize("text", ["", "Killed", "[]", "{}", '{"state": "FAILED"}', "null"])
def test_what_is_not_ours_is_nothing(text: str) -> None:
    assert TerminationMessage.parse(text) is None


def test_an_unknown_cause_is_nothing() -> None:
    text = TerminationMessage.of(FAILED, run="r", attempt=1).to_json().replace("user_error", "bad_luck")
    assert TerminationMessage.parse(text) is None


def test_later_words_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    for outcome in (FAILED, Outcome()):
        message = TerminationMessage.of(outcome, run="r", attempt=1)
        message.write(str(path))
        assert TerminationMessage.parse(path.read_text()) == message


def test_where_they_can_not_be_written_nothing_else_breaks(tmp_path: Path) -> None:
    message = TerminationMessage.of(FAILED, run="r", attempt=1)
    message.write("")
    message.write(str(tmp_path / "missing" / "log"))
