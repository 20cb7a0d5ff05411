"""The last lines of a flow's process, in memory that its parent shares, so that they survive the process's death.

A process that dies abruptly (a signal, ``os._exit``, a crash in C) loses the lines that were printed and not yet sent.
So the parent makes a journal before it forks, and the process also writes each line there. The parent also owns the
pipes that replace descriptors 1 and 2. Don't trust what is recovered: any code in that process may have written it.

Imports only the standard library, because the parent process in a container imports nothing else.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
import time
from collections.abc import Iterator

#: Streams of lines.
STREAMS = ("stdout", "stderr", "log", "gap")

#: Sources of partial lines: Python's streams, and the pipes.
SLOTS = ("stdout", "stderr", "pipe 1", "pipe 2")

_NAME = 256  # bytes for the id of the run
_SLOT = 4096
_HALF = 65536
_SLOTS_AT = _NAME
_HALVES_AT = _NAME + len(SLOTS) * _SLOT
_CHUNKS_AT = _HALVES_AT + 2 * _HALF
_CHUNK = 65536
_MARK = struct.Struct("<BQ")  # 1 while a chunk is being turned into lines; the number of the last line before it
_SIZE = _CHUNKS_AT + 2 * (_MARK.size + _CHUNK)
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<QdBB")  # number, time, stream, bytes of the level
_LONGEST = _HALF // 2
_AFTER = struct.Struct("<Q")
_HIGHEST = 10**12  # entries with a larger number are invalid
_MOST = 2**20  # bytes read from a pipe after a death: more than a pipe holds


class JournalLine:
    """A line: its number, seconds since the epoch, stream, level and text."""

    __slots__ = ("level", "number", "stream", "text", "time")

    def __init__(self, number: int, time: float, stream: str, level: str, text: str) -> None:
        self.number, self.time, self.stream, self.level, self.text = number, time, stream, level, text


class Journal:
    """The journal of one process and of its current run. Made in the parent, written in the child by one thread at a
    time.

    Attributes:
        unread: after :meth:`recover`, the bytes that were left in the pipe of each descriptor.
        piped: True if the system can reopen a pipe's write end; otherwise the child makes pipes of its own.
    """

    def __init__(self) -> None:
        self.piped = os.path.isdir("/proc/self/fd")  # noqa: PTH112 - no pathlib in a runner's start
        self.unread: dict[int, bytes] = {}
        self._memory = mmap.mmap(-1, _SIZE)
        self._active = self._at = self._last = 0
        self._used = False
        self._pipes = {number: os.pipe() for number in (1, 2)}
        for source, _ in self._pipes.values():
            os.set_blocking(source, False)

    def close_write_ends(self) -> None:
        """In parent and child, after the fork: close the write ends, so that only :meth:`target` opens one."""
        for _, target in self._pipes.values():
            with contextlib.suppress(OSError):
                os.close(target)

    def close(self) -> None:
        """Close the pipes: in the parent once the child is gone, and in the child's siblings."""
        for source, _ in self._pipes.values():
            with contextlib.suppress(OSError):
                os.close(source)

    def begin(self, run_id: str, after: int = 0) -> None:
        """In the child: start the journal of a run whose last line so far has number ``after``."""
        name = _AFTER.pack(after) + run_id.encode()[: _NAME - _LENGTH.size - _AFTER.size]
        if self._used:
            self._put(0, b"")
            for slot in range(len(SLOTS)):
                self._put(_SLOTS_AT + slot * _SLOT, b"")
            for half in range(2):
                self._put(_HALVES_AT + half * _HALF, b"")
        self._used = False
        self._active = self._at = 0
        self._last = after
        self._put(0, name)

    def add(self, line: JournalLine) -> None:
        """In the child: add a line."""
        self._used = True
        level, text = line.level.encode()[:255], line.text.encode(errors="backslashreplace")[:_LONGEST]
        head = _HEAD.pack(line.number, line.time, STREAMS.index(line.stream), len(level))
        entry = head + level + text
        if self._at + len(entry) + 2 * _LENGTH.size > _HALF:
            self._active, self._at = 1 - self._active, 0
        start = _HALVES_AT + self._active * _HALF + self._at
        end = start + _LENGTH.size + len(entry)
        self._memory[end : end + _LENGTH.size] = _LENGTH.pack(0)
        self._put(start, entry)
        self._last = line.number
        self._at += _LENGTH.size + len(entry)

    def set_partial(self, slot: str, text: str) -> None:
        """In the child: store the text so far of a line that hasn't ended."""
        self._used = True
        self._put(_SLOTS_AT + SLOTS.index(slot) * _SLOT, text.encode(errors="backslashreplace")[: _SLOT - _LENGTH.size])

    def source(self, number: int) -> int:
        """In the child: return the read end of the pipe of descriptor ``number``."""
        return self._pipes[number][0]

    def target(self, number: int) -> int:
        """In the child: open the write end of the pipe of descriptor ``number``; the caller closes it.

        Raises:
            OSError: this system can't open it.
        """
        return os.open(f"/proc/self/fd/{self._pipes[number][0]}", os.O_WRONLY | os.O_CLOEXEC)

    def read(self, number: int) -> bytes:
        """In the child: read at most a chunk from the pipe of a descriptor. The system writes it straight into the
        journal, so that it isn't lost between the pipe and the lines made of it; :meth:`clear_chunk` removes it then.

        Raises:
            BlockingIOError: nothing is there.
        """
        mark, start = self._chunk(number)
        _MARK.pack_into(self._memory, mark, 1, self._last)
        with memoryview(self._memory) as whole, whole[start : start + _CHUNK] as view:
            try:
                length = os.readv(self.source(number), [view])
            except OSError:
                _MARK.pack_into(self._memory, mark, 0, 0)
                raise
            return bytes(view[:length])

    def clear_chunk(self, number: int, length: int) -> None:
        """In the child: remove a chunk of ``length`` bytes, which are lines or a partial line by now."""
        mark, start = self._chunk(number)
        _MARK.pack_into(self._memory, mark, 0, 0)
        self._memory[start : start + length] = bytes(length)

    def has_other_writers(self) -> bool:
        """In the child, between two runs: return True if another process can still write to a pipe."""
        if not self.piped:
            return False
        poll = select.poll()
        for source, _ in self._pipes.values():
            poll.register(source, 0)
        return len([mask for _, mask in poll.poll(0) if mask & select.POLLHUP]) < len(self._pipes)

    def recover(self, run_id: str) -> list[JournalLine]:
        """In the parent: return the last lines of a dead child's run, oldest first, as far as they can be read.

        Some of them may have been sent already. Call it only once, because it empties the pipes.
        """
        name = self._get(0, _NAME)
        if name[_AFTER.size :] != run_id.encode():
            return []
        lines = [line for half in range(2) for line in self._lines(_HALVES_AT + half * _HALF)]
        lines = sorted((line for line in lines if 0 < line.number < _HIGHEST), key=lambda line: line.number)
        unended = [(stream, self._partial(slot)) for slot, stream in enumerate(STREAMS[:2])]
        for number, (source, _) in self._pipes.items():
            self.unread[number], stream = _read_all(source), STREAMS[number - 1]
            chunk, last = self._unfinished_chunk(number)
            pieces = (self._partial(number + 1) + chunk + self.unread[number]).splitlines()
            done = sum(line.stream == stream and line.number > last for line in lines) if chunk else 0
            unended += ((stream, piece) for piece in pieces[done:])
        (after,) = _AFTER.unpack_from(name)
        last = lines[-1].number if lines else min(after, _HIGHEST)
        rest = [(stream, text) for stream, text in unended if text]
        return lines + [
            JournalLine(number, time.time(), stream, "", _text(text))
            for number, (stream, text) in enumerate(rest, last + 1)
        ]

    def _chunk(self, number: int) -> tuple[int, int]:
        """Return the offsets of the mark and of the chunk of a descriptor."""
        mark = _CHUNKS_AT + (number - 1) * (_MARK.size + _CHUNK)
        return mark, mark + _MARK.size

    def _unfinished_chunk(self, number: int) -> tuple[bytes, int]:
        """Return the bytes that the child had read and not yet turned into lines, and the number of the last line
        before them."""
        mark, start = self._chunk(number)
        unfinished, last = _MARK.unpack_from(self._memory, mark)
        return (self._memory[start : start + _CHUNK].rstrip(b"\0") if unfinished else b""), last

    def _lines(self, start: int) -> Iterator[JournalLine]:
        end = start + _HALF
        while start + _LENGTH.size <= end:
            entry = self._get(start, end - start)
            if len(entry) < _HEAD.size:
                return
            number, at, stream, level = _HEAD.unpack_from(entry)
            if stream >= len(STREAMS):
                return
            rest = entry[_HEAD.size :]
            yield JournalLine(number, at, STREAMS[stream], _text(rest[:level]), _text(rest[level:]))
            start += _LENGTH.size + len(entry)

    def _partial(self, slot: int) -> bytes:
        return self._get(_SLOTS_AT + slot * _SLOT, _SLOT)

    def _put(self, start: int, data: bytes) -> None:
        """Write an entry, its length last, so that a reader never sees a half-written one."""
        begin = start + _LENGTH.size
        self._memory[start:begin] = _LENGTH.pack(0)
        self._memory[begin : begin + len(data)] = data
        self._memory[start:begin] = _LENGTH.pack(len(data))

    def _get(self, start: int, room: int) -> bytes:
        begin = start + _LENGTH.size
        (length,) = _LENGTH.unpack_from(self._memory, start)
        return self._memory[begin : begin + length] if length <= room - _LENGTH.size else b""


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _read_all(source: int) -> bytes:
    """Return the bytes that are in a pipe now."""
    content = bytearray()
    with contextlib.suppress(OSError):  # empty, or closed
        while len(content) < _MOST and (data := os.read(source, _MOST)):
            content += data
    return bytes(content)


_current: Journal | None = None


def current_journal() -> Journal | None:
    """Return this process's journal, or None if its parent made none."""
    return _current


def adopt_journal(journal: Journal) -> None:
    """In the child, after the fork: make ``journal`` this process's own."""
    global _current  # noqa: PLW0603 - as descriptors 1 and 2, it is the whole process's
    journal.close_write_ends()
    _current = journal
