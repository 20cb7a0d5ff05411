"""Log lines in Redis, a stream per run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from dispatcher.records.effects import STRAY
from dispatcher.records.logs import Line, Logs, last_lines
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.redis.bounds import MOST_LINES
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.connection.streams import Entry, previous_position, read_backwards, read_stream
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.support.failpoints import failpoint
from dispatcher.support.parsing import Fields, number_of, whole_of

#: Most bytes of lines in one call of the script, if they are several.
_BYTES = 2**20

#: Most entries that the search for last lines reads, at once and in all.
_TAIL_PAGE = 100
_TAIL_SEARCHED = 10_000


class RedisLogs(Logs):
    """A stream of lines, and the last number of each numbering, so that appending lines again adds nothing."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed

    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        for (attempt, stream), group in groupby(lines, key=lambda line: line.numbering):
            for portion in _portions(group):
                self._append(run_id, attempt, stream, portion)

    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        with self._malformed.leaving_out(f"lines of run {run_id}", block):
            while entries := read_stream(self._client, self._keys.logs(run_id), after=after, limit=limit, block=block):
                after = entries[-1][0]
                if lines := list(self._parse(run_id, entries)):
                    return lines, after
        return [], after

    def tail(self, run_id: str, lines: int, *, attempt: int | None = None, gaps: bool = True) -> list[Line]:
        with self._malformed.leaving_out(f"lines of run {run_id}"):
            return last_lines(self._backwards(run_id, min(lines, _TAIL_PAGE)), lines, attempt=attempt, gaps=gaps)
        return []

    def _backwards(self, run_id: str, page: int) -> Iterator[Line]:
        """Yield lines of a run, newest first; read so many entries first, then page by page."""
        key, before, searched = self._keys.logs(run_id), "", 0
        while searched < _TAIL_SEARCHED:
            entries = read_backwards(self._client, key, before=before, limit=page)
            yield from self._parse(run_id, entries)
            if len(entries) < page or not (before := previous_position(entries[-1][0])):
                return
            searched, page = searched + page, _TAIL_PAGE

    def _parse(self, run_id: str, entries: Iterable[Entry]) -> Iterator[Line]:
        for position, fields in entries:
            line = self._malformed.read(f"line {position} of run {run_id}", partial(_parse_line, fields))
            if line is not None:
                yield line

    def _append(self, run_id: str, attempt: int, stream: str, lines: Sequence[tuple[Any, ...]]) -> None:
        words = [word for line in lines for word in line]
        keys, record = [self._keys.logs(run_id), self._keys.lines(run_id)], self._keys.run(run_id)
        numbering = f"{attempt}/{stream}" if stream else attempt
        self._client.run(script("append"), keys, record, int(STRAY), attempt, numbering, *words)
        failpoint("lines.appended", run_id)


def _portions(lines: Iterable[Line]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the words of each line, in portions for one call of the script."""
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


def _parse_line(fields: dict[str, str]) -> Line:
    line = Fields(fields, "line")
    return Line(
        attempt=whole_of(line.text("attempt"), "line: attempt"),
        number=whole_of(line.text("number"), "line: number"),
        time=number_of(line.text("time"), "line: time"),
        stream=line.name("stream"),
        text=line.text("text"),
        level=line.name("level", ""),
    )
