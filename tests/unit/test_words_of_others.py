"""Words of others in log lines, in sentences and errors for programs, and in commands that are recommended."""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher.admin.doctor import serving as examined
from dispatcher.client.results import error_of
from dispatcher.client.run import Run
from dispatcher.errors import RunError
from dispatcher.inspection.explain import command_for, explain, unserved
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from tests.steering import STEERING, steers
from workers.log_setup import DescriptorHandler, OneLineFormatter

HOSTILE = "".join(STEERING.values())
FORGED = f"no\n2026-01-01 00:00:00 INFO run r2: all is well{HOSTILE}"
PAGE = f"<script>{FORGED}"


@pytest.fixture
def lines() -> Iterator[Any]:
    """A logger as a worker has it, and what it wrote so far."""
    reading, writing = os.pipe()
    logger = logging.getLogger("workers.of_test")
    handler = DescriptorHandler(writing)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield SimpleNamespace(logger=logger, read=lambda: os.read(reading, 1 << 16).decode())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logging.getLogger("workers").setLevel(logging.NOTSET)
        os.close(reading)
        os.close(writing)


class TestLogLines:
    def test_a_record_is_one_line(self, lines: Any) -> None:
        lines.logger.warning("run %s: refused: %s", "r1", FORGED)
        written = lines.read()
        assert written.count("\n") == 1
        assert written.rstrip().endswith("\\ud800")
        assert "refused: no\\n2026" in written
        assert not steers(written)

    @pytest.mark.parametrize(("level", "shows"), [(logging.INFO, False), (logging.DEBUG, True)])
    def test_an_exceptions_words_forge_none(self, lines: Any, level: int, shows: bool) -> None:
        logging.getLogger("workers").setLevel(level)
        try:
            raise ValueError(FORGED)
        except ValueError as error:
            lines.logger.exception("it failed: %s", error)
        written = lines.read()
        assert not steers(written)
        assert ("Traceback (most recent call last):\n" in written) is shows
        assert "failed: no\\n2026" in written.splitlines()[0]
        assert shows or written.count("\n") == 1


def _record(**changes: Any) -> Record:
    route = Route("local", (f"gpu{HOSTILE}",))
    none = Value(codec="json", inline="{}")
    spec = Spec(run_id="r1", flow=PAGE, storage={}, location="", parameters=none, environment={}, route=route)
    record = Record(id="r1", spec_bytes=b"", signature="", spec_digest="", **changes)
    record.__dict__["_spec"] = spec
    return record


def _worker(**changes: Any) -> WorkerInfo:
    offer = Offer(backends=frozenset({f"local{HOSTILE}"}), labels=frozenset({FORGED}), scope=HOSTILE)
    facts = {"id": "w1", "host": FORGED, "pid": 1, "offer": offer, "concurrency": 1, "started_at": 0.0,
             "python": "3.11", "version": "", "celery_name": "", "queues": ()}  # fmt: skip
    return WorkerInfo(**{**facts, **changes})


class TestSentences:
    @pytest.mark.parametrize(
        "record",
        [
            _record(),
            _record(state=State.RUNNING, owner=FORGED),
            _record(state=State.PENDING, owner="w1", last_cause=Cause.IMAGE_PULL, last_message=FORGED),
            _record(
                state=State.CRASHED,
                outcome=Outcome(cause=Cause.KILLED, reason=FORGED, message=FORGED),
                ended_at=2.0,
                leftovers=({"attempt": 1, "pending": FORGED},),
            ),
        ],
        ids=lambda record: str(record.state),
    )
    def test_each_is_a_line_that_can_be_printed(self, record: Record) -> None:
        lines = explain(record, now=1.0, workers=[_worker()], queues={}, depth=2)
        assert lines
        assert not [line for line in lines if steers(line) or "\n" in line]

    def test_a_warning_can_be_printed(self) -> None:
        warning = unserved(Route(FORGED, (FORGED,)), [_worker()])
        assert not steers(warning)
        assert "\n" not in warning

    def test_a_notebook_shows_text(self) -> None:
        page = Run("r1", None, _record())._repr_html_()
        assert "<script" not in page
        assert not steers(page)
        assert "no\\n2026" in page

    def test_a_recommended_command_is_one_command(self) -> None:
        words = shlex.split(command_for(Route("local; rm -rf ~", ("a b", "$(id)"))))
        assert words == ["dispatcher", "worker", "--backend", "local; rm -rf ~", "--label", "a b", "--label", "$(id)"]
        [_, finding] = examined([], {"local;id #:eu": (Route("local;id #", ("eu",)), 1)}, python=(3, 11))
        assert "--backend 'local;id #'" in finding.remedy


@pytest.mark.parametrize("state", [State.FAILED, State.CRASHED, State.TIMED_OUT, State.CANCELLED])
def test_an_error_that_python_prints_steers_nothing(state: State) -> None:
    outcome = Outcome(
        cause=Cause.KILLED,
        reason=HOSTILE,
        message=FORGED,
        traceback=f"Traceback …\n  {FORGED}\n",
        log_tail=(FORGED,),
        report=FORGED,
    )
    error = error_of(cast(Any, None), _record(state=state, outcome=outcome))
    assert isinstance(error, RunError)
    printed = io.StringIO()
    traceback.print_exception(error, file=printed)
    assert not steers(printed.getvalue())
    assert "all is well" in printed.getvalue()
    assert error.traceback == outcome.traceback, "attributes are as recorded"
    printed.getvalue().encode(sys.stdout.encoding or "utf-8")
