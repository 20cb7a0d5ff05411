"""Lines are cleaned and bounded before they are stored, and some can't be stored."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from dispatcher.errors import Malformed
from dispatcher.logs import sender_threads as senders
from dispatcher.logs.shipper import LogShipper, clean
from dispatcher.records.logs import Line
from dispatcher.settings import LimitSettings
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("be\x07ll\x00\x9b", "bell"),
        ("half \ud800", "half \\ud800"),
        ("ünïcödé 日本 \u00a0", "ünïcödé 日本 \u00a0"),
        ("x" * 100, "x" * 60 + " …"),
        ("日" * 100, "日" * 20 + " …"),
    ],
)
def test_lines_are_clean_and_bounded(raw: str, shown: str) -> None:
    assert clean(raw, 64) == shown
    assert len(clean(raw, 64).encode()) <= 64


def test_lines_that_can_be_kept_nowhere_hold_up_nobody() -> None:
    """Their key holds another type: they are dropped, and later lines are sent."""
    refused = threading.Event()
    stored: list[str] = []

    def sink(lines: Sequence[Line]) -> None:
        if not refused.is_set():
            refused.set()
            raise Malformed("a key on the server holds something else than what belongs there")
        stored.extend(line.text for line in lines)

    shipper = LogShipper(sink, 1, LimitSettings())
    shipper.put("stdout", "lost")
    wait_until(refused.is_set, "the refusal")
    shipper.put("stdout", "kept")
    assert shipper.close(10.0)
    assert stored == ["kept"]


def test_threads_of_many_flows_that_logged_at_once_are_not_kept() -> None:
    """With ``memory://`` flows run in threads of one process."""
    go = threading.Event()
    shippers = [LogShipper(lambda _: go.wait(30), 1, LimitSettings()) for _ in range(20)]  # type: ignore[arg-type]

    def sending() -> int:
        return [thread.name for thread in threading.enumerate()].count("dispatcher-logs")

    for shipper in shippers:
        shipper.put("stdout", "a line")
    assert sending() >= len(shippers)
    go.set()
    assert all(shipper.close(30) for shipper in shippers)
    wait_until(lambda: sending() <= senders.MOST_IDLE, "the end of most")
