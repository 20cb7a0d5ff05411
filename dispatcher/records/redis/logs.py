"""Lines of runs in Redis, a stream per run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from dispatcher.records.effects import STRAY
from dispatcher.records.logs import Line, Logs
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.bounds import MOST_LINES
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.streams import read_stream
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.support.failpoints import failpoint
from dispatcher.support.parsing import Fields, number_of, whole_of

#: Most bytes of one script's lines, where they are several.
_BYTES = 2**20


class RedisLogs(Logs):
    """The number of each attempt's last line is kept beside the stream, so that repetition adds nothing."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed

    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        for attempt, group in groupby(lines, key=lambda line: line.attempt):
            for portion in _portions(group):
                self._append(run_id, attempt, portion)

    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        while found := read_stream(self._client, self._keys.logs(run_id), after=after, limit=limit, block=block):
            after = found[-1][0]
            read = (
                self._malformed.read(f"line {position} of run {run_id}", partial(_line, fields))
                for position, fields in found
            )
            if lines := [line for line in read if line is not None]:
                return lines, after
        return [], after

    def _append(self, run_id: str, attempt: int, lines: Sequence[tuple[Any, ...]]) -> None:
        words = [word for line in lines for word in line]
        keys, record = [self._keys.logs(run_id), self._keys.lines(run_id)], self._keys.run(run_id)
        self._client.run(script("append"), keys, record, int(STRAY), attempt, *words)
        failpoint("lines.appended", run_id)


def _portions(lines: Iterable[Line]) -> Iterator[list[tuple[Any, ...]]]:
    """The words of each line, those of some lines together."""
    portion: list[tuple[Any, ...]] = []
    size = 0
    for line in lines:
        text = line.text.encode(errors="backslashreplace")
        if portion and (len(portion) >= MOST_LINES or size + len(text) > _BYTES):
            yield portion
            portion, size = [], 0
        portion.append((line.number, repr(line.time), line.stream, line.level, text))
        size += len(text)
    if portion:
        yield portion


def _line(fields: dict[str, str]) -> Line:
    given = Fields(fields, "line")
    return Line(
        attempt=whole_of(given.text("attempt"), "line: attempt"),
        number=whole_of(given.text("number"), "line: number"),
        time=number_of(given.text("time"), "line: time"),
        stream=given.name("stream"),
        text=given.text("text"),
        level=given.name("level", ""),
    )
