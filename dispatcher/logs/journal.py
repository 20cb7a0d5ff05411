"""The last words of a flow's process, in memory that its parent shares: they are still there when the process has died.

A process that dies at once (a signal, ``os._exit``, a crash in C) takes with it the lines that were printed and not yet
sent. So the parent makes a journal before it forks, and the process writes each line there, too. The parent also holds
the pipes that stand in the place of descriptors 1 and 2. What it reads may have been written by anybody who runs there.

Imports the standard library alone: the parent in a container does without the rest.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
import time
from collections.abc import Iterator

#: Streams of lines, and of what is held back until its line ends: by a writer in Python, or off a pipe.
STREAMS = ("stdout", "stderr", "log", "gap")
SLOTS = ("stdout", "stderr", "pipe 1", "pipe 2")

_NAME = 256  # bytes for the id of the run
_SLOT = 4096
_HALF = 65536
_SLOTS_AT = _NAME
_HALVES_AT = _NAME + len(SLOTS) * _SLOT
_CHUNKS_AT = _HALVES_AT + 2 * _HALF
_CHUNK = 65536
_MARK = struct.Struct("<BQ")  # whether a chunk is being taken, and the number of the last line before it
_SIZE = _CHUNKS_AT + 2 * (_MARK.size + _CHUNK)
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<QdBB")  # number, time, stream, bytes of the level
_LONGEST = _HALF // 2
_AFTER = struct.Struct("<Q")
_HIGHEST = 10**12  # a number beyond that is none
_MOST = 2**20  # bytes read off a pipe after a death: more than one holds


class JournalLine:
    """A line: its number, seconds since the epoch, stream, level and text."""

    __slots__ = ("level", "number", "stream", "text", "time")

    def __init__(self, number: int, time: float, stream: str, level: str, text: str) -> None:
        self.number, self.time, self.stream, self.level, self.text = number, time, stream, level, text


class Journal:
    """Of one process, for one run after the other. Made in the parent, written in the child by one thread at a time.

    Attributes:
        unread: after :meth:`recover`, what was in the pipe of each descriptor.
        piped: whether the system can open a pipe's other end again; else the child makes pipes of its own.
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
        """In the parent and in the child, after the fork: nobody holds a writing end until one is asked for."""
        for _, target in self._pipes.values():
            with contextlib.suppress(OSError):
                os.close(target)

    def close(self) -> None:
        """In the parent, once the child is gone; in a sibling."""
        for source, _ in self._pipes.values():
            with contextlib.suppress(OSError):
                os.close(source)

    def begin(self, run_id: str, after: int = 0) -> None:
        """In the child: what comes is of this run, whose last line so far has number ``after``."""
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
        """In the child: a line was put."""
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

    def hold(self, slot: str, text: str) -> None:
        """In the child: what a line that hasn't ended has so far."""
        self._used = True
        self._put(_SLOTS_AT + SLOTS.index(slot) * _SLOT, text.encode(errors="backslashreplace")[: _SLOT - _LENGTH.size])

    def source(self, number: int) -> int:
        """In the child: where descriptor ``number`` is read."""
        return self._pipes[number][0]

    def target(self, number: int) -> int:
        """In the child: a descriptor that writes there; the caller closes it.

        Raises:
            OSError: this system can't open it.
        """
        return os.open(f"/proc/self/fd/{self._pipes[number][0]}", os.O_WRONLY | os.O_CLOEXEC)

    def read(self, number: int) -> bytes:
        """In the child: what is in the pipe of a descriptor, a chunk at most. The system writes it into the journal, so
        that it isn't lost either between the pipe and the lines that are made of it; :meth:`taken` says that they are.

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

    def taken(self, number: int, length: int) -> None:
        """In the child: so many bytes that were read are lines now, or held."""
        mark, start = self._chunk(number)
        _MARK.pack_into(self._memory, mark, 0, 0)
        self._memory[start : start + length] = bytes(length)

    def has_other_writers(self) -> bool:
        """In the child, between two runs: whether another process can still write to a pipe."""
        if not self.piped:
            return False
        poll = select.poll()
        for source, _ in self._pipes.values():
            poll.register(source, 0)
        return len([mask for _, mask in poll.poll(0) if mask & select.POLLHUP]) < len(self._pipes)

    def recover(self, run_id: str) -> list[JournalLine]:
        """In the parent: what a dead child said last of a run, oldest first, as far as it can be read. Its last lines
        may have been sent already. May be asked once: what is in the pipes is taken."""
        name = self._get(0, _NAME)
        if name[_AFTER.size :] != run_id.encode():
            return []
        lines = [line for half in range(2) for line in self._lines(_HALVES_AT + half * _HALF)]
        lines = sorted((line for line in lines if 0 < line.number < _HIGHEST), key=lambda line: line.number)
        unended = [(name, self._held(slot)) for slot, name in enumerate(STREAMS[:2])]
        for number, (source, _) in self._pipes.items():
            self.unread[number], stream = _rest(source), STREAMS[number - 1]
            chunk, last = self._being_taken(number)
            pieces = (self._held(number + 1) + chunk + self.unread[number]).splitlines()
            done = sum(line.stream == stream and line.number > last for line in lines) if chunk else 0
            unended += ((stream, piece) for piece in pieces[done:])
        (after,) = _AFTER.unpack_from(name)
        last = lines[-1].number if lines else min(after, _HIGHEST)
        rest = [one for one in unended if one[1]]
        return lines + [
            JournalLine(number, time.time(), stream, "", _text(text))
            for number, (stream, text) in enumerate(rest, last + 1)
        ]

    def _chunk(self, number: int) -> tuple[int, int]:
        """Return where the mark and the chunk of a descriptor begin."""
        mark = _CHUNKS_AT + (number - 1) * (_MARK.size + _CHUNK)
        return mark, mark + _MARK.size

    def _being_taken(self, number: int) -> tuple[bytes, int]:
        """Return the bytes that the child read and hadn't made lines of, and the number of the last line before
        them."""
        mark, start = self._chunk(number)
        taking, last = _MARK.unpack_from(self._memory, mark)
        return (self._memory[start : start + _CHUNK].rstrip(b"\0") if taking else b""), last

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

    def _held(self, slot: int) -> bytes:
        return self._get(_SLOTS_AT + slot * _SLOT, _SLOT)

    def _put(self, start: int, data: bytes) -> None:
        """Its length comes last: what is half written isn't there."""
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


def _rest(source: int) -> bytes:
    """Return the bytes that are in a pipe now."""
    found = bytearray()
    with contextlib.suppress(OSError):  # nothing more, or closed
        while len(found) < _MOST and (data := os.read(source, _MOST)):
            found += data
    return bytes(found)


_current: Journal | None = None


def current_journal() -> Journal | None:
    """This process's journal, if its parent made one."""
    return _current


def adopt_journal(journal: Journal) -> None:
    """In the child, after the fork: this is its journal."""
    global _current  # noqa: PLW0603 - as descriptors 1 and 2, it is the whole process's
    journal.close_write_ends()
    _current = journal
