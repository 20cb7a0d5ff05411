"""A flow's output becomes lines: in order, bounded, without slowing the flow."""

# ruff: noqa: T201 - printing is what this is about
from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dispatcher.logs.capture import captured
from dispatcher.records.logs import Line
from dispatcher.settings import LimitSettings
from tests.waiting import wait_until

LIMITS = LimitSettings()


class Sink:
    """Stores lines as the records do, and can be away."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.batches: list[int] = []
        self.away = threading.Event()
        self.refused = 0

    def __call__(self, lines: Sequence[Line]) -> None:
        if self.away.is_set():
            self.refused += 1
            raise ConnectionError("the server is away")
        self.batches.append(len(lines))
        last = self.lines[-1].number if self.lines else 0
        self.lines += [line for line in lines if line.number > last]

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]


def capture(body: Callable[[], object], *, fds: bool = False, limits: LimitSettings = LIMITS) -> Sink:
    sink = Sink()
    with captured(sink, 3, limits, fds):
        body()
    return sink


def test_prints_and_logs_in_order() -> None:
    def body() -> None:
        print("one")
        print("two", file=sys.stderr)
        logging.getLogger("dispatcher.flow").info("three %d", 3)
        logging.getLogger("some.library").warning("four")
        print("five")

    sink = capture(body)
    assert [(line.stream, line.level, line.text) for line in sink.lines] == [
        ("stdout", "", "one"),
        ("stderr", "", "two"),
        ("log", "INFO", "three 3"),
        ("log", "WARNING", "some.library: four"),
        ("stdout", "", "five"),
    ]
    assert [line.number for line in sink.lines] == [1, 2, 3, 4, 5]
    assert {line.attempt for line in sink.lines} == {3}
    assert all(abs(line.time - time.time()) < 60 for line in sink.lines)


def test_in_a_process_of_its_own_every_logger_is_heard_from_info_on_and_no_line_twice() -> None:
    root = logging.getLogger()
    console = logging.StreamHandler(os.fdopen(os.dup(2), "w"))
    root.addHandler(console)
    handlers, level = list(root.handlers), root.level

    def body() -> None:
        logging.getLogger("some.library").info("heard")
        logging.getLogger("some.library").debug("not heard")

    try:
        sink = capture(body, fds=True)
        assert (root.handlers, root.level) == (handlers, level)
    finally:
        root.removeHandler(console)
        console.stream.close()
    assert sink.texts == ["some.library: heard"]


def test_an_exception_logged_is_one_line_each() -> None:
    def body() -> None:
        try:
            raise ValueError("bad")
        except ValueError:
            logging.getLogger("dispatcher.flow").exception("failed")

    sink = capture(body)
    assert sink.texts[:2] == ["failed", "Traceback (most recent call last):"]
    assert sink.texts[-1] == "ValueError: bad"
    assert {line.level for line in sink.lines} == {"ERROR"}


def test_everything_is_put_back() -> None:
    before = sys.stdout, sys.stderr, list(logging.getLogger().handlers), logging.getLogger("dispatcher.flow").level

    def body() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        capture(body, fds=True)
    now = sys.stdout, sys.stderr, list(logging.getLogger().handlers), logging.getLogger("dispatcher.flow").level
    assert now == before


def test_partial_and_empty_lines() -> None:
    def body() -> None:
        sys.stdout.write("a")
        sys.stdout.write("b\n\nc\nd")
        sys.stdout.flush()

    assert capture(body).texts == ["ab", "", "c", "d"]


def test_a_progress_bar_is_one_line() -> None:
    def body() -> None:
        for percent in range(0, 101, 10):
            sys.stderr.write(f"\r{percent}%")
        sys.stderr.write("\n")
        sys.stderr.write("windows\r\n")

    assert capture(body).texts == ["100%", "windows"]


def test_threads_do_not_mix_their_lines() -> None:
    def body() -> None:
        def talk(name: str) -> None:
            for _ in range(200):
                for part in (name, name, name, "\n"):
                    sys.stdout.write(part)

        threads = [threading.Thread(target=talk, args=(name,)) for name in "xyz"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    texts = capture(body).texts
    assert sorted(texts) == ["xxx"] * 200 + ["yyy"] * 200 + ["zzz"] * 200


def test_bytes_and_the_ways_of_a_real_stream() -> None:
    def body() -> None:
        raw = "grün\n".encode()
        sys.stdout.buffer.write(raw[:3])
        sys.stdout.buffer.write(raw[3:])
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert isinstance(sys.stdout, io.TextIOBase)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[attr-defined]
        sys.stdout.close()
        print("still open")
        with pytest.raises(TypeError, match="str, not int"):
            sys.stdout.write(1)  # type: ignore[arg-type]

    assert capture(body).texts == ["grün", "still open"]


def test_a_line_that_never_ends_is_cut_in_memory_too() -> None:
    def body() -> None:
        for _ in range(2000):
            sys.stdout.write("x" * 1000)

    (text,) = capture(body).texts
    assert len(text.encode()) <= LIMITS.line
    assert text.endswith("…")


# ------------------------------------------------------------------------------------------------------- limits


def test_a_talkative_flow_is_capped_with_a_gap_and_its_last_lines() -> None:
    sink = capture(lambda: [print(f"line {n:05}") for n in range(1, 5001)], limits=LimitSettings(log=1100))
    texts = sink.texts
    assert texts[:100] == [f"line {n:05}" for n in range(1, 101)]
    assert texts[101:] == [f"line {n:05}" for n in range(4951, 5001)]
    gap = sink.lines[100]
    assert (gap.stream, gap.number) == ("gap", 4950)
    assert gap.text == "4,850 lines are missing (more than 1,100 bytes of log)"
    assert sink.lines[101].number == 4951


def test_no_gap_where_the_last_lines_close_it() -> None:
    sink = capture(lambda: [print(f"line {n:05}") for n in range(1, 131)], limits=LimitSettings(log=1100))
    assert sink.texts == [f"line {n:05}" for n in range(1, 131)]


def test_the_last_lines_are_at_hand() -> None:
    with captured(Sink(), 1, LIMITS, False) as capture:
        for n in range(100):
            print(n)
        sys.stdout.write("partial")
        assert capture.tail() == (*(str(n) for n in range(51, 100)), "partial")


def test_numbers_go_on_after_a_dead_process() -> None:
    sink = Sink()
    with captured(sink, 1, LIMITS, False, after=41):
        print("next")
    assert [line.number for line in sink.lines] == [42]


# ------------------------------------------------------------------------------------------------------ shipping


def test_lines_arrive_while_the_flow_runs() -> None:
    sink = Sink()
    with captured(sink, 1, LIMITS, False):
        print("now")
        wait_until(lambda: sink.texts == ["now"], "the line", timeout=2)
        print("later")
        wait_until(lambda: sink.texts == ["now", "later"], "the second line", timeout=2)


def test_a_server_that_is_away_costs_no_line_and_no_time() -> None:
    sink = Sink()
    sink.away.set()
    with captured(sink, 1, LIMITS, False):
        begun = time.monotonic()
        for n in range(2000):
            print(n)
        assert time.monotonic() - begun < 2
        wait_until(lambda: sink.refused >= 2, "two refusals")
        sink.away.clear()
        wait_until(lambda: len(sink.lines) == 2000, "all lines")
    assert sink.texts == [str(n) for n in range(2000)]


def test_what_could_not_be_sent_goes_on_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.logs.capture._FLUSH_TIMEOUT", 0.1)
    sink = Sink()
    sink.away.set()
    with captured(sink, 1, LIMITS, False) as capture:
        print("late")
    assert sink.lines == []
    assert not capture.close(0)
    sink.away.clear()
    assert capture.close(5)
    assert sink.texts == ["late"]


def test_a_long_outage_leaves_a_gap_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.logs.shipper._PENDING", (1000, 10**6))
    sink = Sink()
    sink.away.set()
    with captured(sink, 1, LIMITS, False):
        for n in range(1, 5001):
            print(n)
        wait_until(lambda: sink.refused, "a refusal")
        sink.away.clear()
        wait_until(lambda: len(sink.lines) >= 1000, "the buffered lines")
        print("back")
    streams = [line.stream for line in sink.lines]
    assert streams.count("gap") == 1
    gap = sink.lines[streams.index("gap")]
    assert gap.number == 5000
    assert "the server was away" in gap.text
    assert sink.texts[-1] == "back"
    assert len(sink.lines) < 1600


def test_batches_are_bounded() -> None:
    begun = time.monotonic()
    sink = capture(lambda: [print(n) for n in range(3000)])
    took = time.monotonic() - begun
    assert max(sink.batches) <= 500
    assert len(sink.batches) <= 3 * 3000 / 500 + took / 0.1 + 3, "each is full, or a tenth of a second's"
    assert len(sink.lines) == 3000


def test_a_flow_may_print_20000_lines_a_second() -> None:
    begun = time.monotonic()
    sink = capture(lambda: [print(f"line number {n} of many") for n in range(20_000)], fds=True)
    took = time.monotonic() - begun
    assert len(sink.lines) == 20_000
    assert took < 3, f"{took:.2f} s: even on a busy machine this takes less"


def test_a_signal_handler_may_print_while_a_line_is_put() -> None:
    before = signal.signal(signal.SIGVTALRM, lambda *_: print("alarm"))
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
        sink = capture(lambda: [print("x" * 50) for _ in range(5000)], fds=True)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert sink.texts.count("x" * 50) > 4900
    assert [line.number for line in sink.lines] == sorted({line.number for line in sink.lines})


# --------------------------------------------------------------------------------- processes, descriptors, echo


def test_children_and_descriptors_are_heard_in_their_place() -> None:
    def body() -> None:
        print("before")
        subprocess.run(
            [sys.executable, "-c", "import sys; print('child'); print('error', file=sys.stderr)"], check=True
        )
        print("between")
        os.write(1, b"raw")
        os.write(1, b" bytes\n")
        print("after")
        os.write(2, b"partial")

    sink = capture(body, fds=True)
    assert sink.texts[0] == "before"
    assert set(sink.texts[1:3]) == {"child", "error"}, "two pipes have no common order"
    assert sink.texts[3:] == ["between", "raw bytes", "after", "partial"]
    assert {line.text: line.stream for line in sink.lines}["error"] == "stderr"


def test_a_child_that_writes_much_does_not_stand_still() -> None:
    def body() -> None:
        subprocess.run([sys.executable, "-c", "for n in range(20000): print(n)"], check=True)

    assert capture(body, fds=True).texts == [str(n) for n in range(20_000)]


def test_a_child_that_outlives_the_flow_does_not_hold_it() -> None:
    children: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()
    capture(lambda: children.append(subprocess.Popen(["sleep", "30"])), fds=True)
    assert time.monotonic() - begun < 5
    children[0].kill()
    children[0].wait()


def test_a_forked_child_is_heard_through_the_descriptor() -> None:
    def body() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                print("from the fork")
                logging.getLogger("dispatcher.flow").info("logged there")
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        print("from the parent")

    assert capture(body, fds=True).texts == ["from the fork", "logged there", "from the parent"]


def test_descriptors_are_closed_again() -> None:
    capture(lambda: print("x"), fds=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        capture(lambda: print("x"), fds=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_echo_also_prints_where_it_would_have_gone(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Sink()
    with captured(sink, 1, LIMITS, False, echo=True):
        print("seen")
    assert sink.texts == ["seen"]
    assert capsys.readouterr().out == "seen\n"
    capture(lambda: print("unseen"))
    assert capsys.readouterr().out == ""


def test_a_stream_that_is_held_for_longer_prints_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    held: list[object] = []
    sink = capture(lambda: held.append(sys.stdout))
    print("afterwards", file=held[0])  # type: ignore[call-overload]
    assert sink.texts == []
    assert capsys.readouterr().out == "afterwards\n"
