"""The echo of what a flow prints: in few writes, and complete."""

from __future__ import annotations

import io
import sys

from dispatcher.logs.stdout import CapturedStream


class CountedStream(io.StringIO):
    """Counts the writes, each of which would be a system call."""

    writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)


def test_a_printed_line_is_echoed_in_one_piece() -> None:
    echo = CountedStream()
    stream = CapturedStream(lambda _: None, sys.__stdout__, 1, 100, echo=echo)  # type: ignore[arg-type]
    print("one", 2, "three", file=stream)
    assert (echo.getvalue(), echo.writes) == ("one 2 three\n", 1)
    print("partial", end="", file=stream)
    assert echo.getvalue() == "one 2 three\n"
    stream.flush()
    assert echo.getvalue() == "one 2 three\npartial"
    print("at the end", end="", file=stream)
    stream.end()
    assert echo.getvalue().endswith("at the end")
    for _ in range(1000):
        stream.write("x")
    assert "x" in echo.getvalue(), "a line without end isn't kept for ever"


def test_what_is_written_to_stderr_is_echoed_at_once() -> None:
    """It may be the last word of a process that dies."""
    echo = CountedStream()
    stream = CapturedStream(lambda _: None, sys.__stderr__, 2, 100, echo=echo)  # type: ignore[arg-type]
    stream.write("Fatal")
    assert echo.getvalue() == "Fatal"
