"""The same warning comes once a minute, with how often it was left out."""

from __future__ import annotations

import logging

import pytest

from dispatcher.support.log_throttle import INTERVAL, LogThrottle


def test_the_same_reason_is_given_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    seldom = LogThrottle(logging.getLogger("seldom"), clock=lambda: now[0])
    for number in range(5000):
        seldom.warn(
            f"teardown of run r{number} stays open", TimeoutError(f"DELETE /jobs/flow-{number}-x: <0x{number:x}>")
        )
    seldom.warn("teardown of run x stays open", "node lost")
    now[0] += INTERVAL
    seldom.warn("teardown of run x stays open", "node lost")
    seldom.warn("teardown of run r7 stays open", TimeoutError("DELETE /jobs/flow-7-x: <0x7>"))
    now[0] += 2 * INTERVAL
    seldom.warn("teardown of run r8 stays open", TimeoutError("DELETE /jobs/flow-8-x: <0x8>"))
    assert caplog.messages == [
        "teardown of run r0 stays open: DELETE /jobs/flow-0-x: <0x0>",
        "teardown of run x stays open: node lost",
        "teardown of run x stays open: node lost",
        "teardown of run r7 stays open: DELETE /jobs/flow-7-x: <0x7> (and 4999 more like it before)",
        "teardown of run r8 stays open: DELETE /jobs/flow-8-x: <0x8>",
    ]


def test_what_was_said_long_ago_is_forgotten() -> None:
    now = [0.0]
    seldom = LogThrottle(logging.getLogger("seldom"), clock=lambda: now[0])
    for number in range(100):
        seldom.warn("x", "reason " + "y" * number)
        now[0] += INTERVAL
    assert len(seldom._logged) <= 21
