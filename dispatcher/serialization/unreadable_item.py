"""The search for the item of a pickled mapping that can't be opened.

A pickle says how to make all of its items, and an error not which one it was making. So it is opened again, slowly,
by an unpickler that tells how far it came. Called by :mod:`dispatcher.serialization.pickles` after that failed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

from dispatcher.errors import INTERRUPTS
from dispatcher.serialization.class_loading import Finder

_MOST = 2**20  # bytes; of more, the slow way takes too long

_KEEPS = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


def item_of(data: bytes) -> str | None:
    """The key of the item that can't be opened here, of a pickled dict with texts as keys; None if nothing tells.

    This runs what stands in the pickle, again, up to where it raises.
    """
    if len(data) > _MOST:
        return None
    try:
        whole = _unframed(data)
        starts = list(_starts(whole))
    except Exception:  # it is no pickle of ours
        return None
    stream = io.BytesIO(whole)
    try:
        _Slow(stream).load()
    except INTERRUPTS:
        raise
    except BaseException:  # what it raised the first time, as a rule
        at = stream.tell()
        return next((key for start, key in reversed(starts) if start < at), None)
    return None


class _Slow(Finder, pickle._Unpickler):
    """The one that is written in Python reads its stream opcode by opcode."""


def _unframed(data: bytes) -> bytes:
    """The same pickle without frames, which are read as a whole."""
    parts, last = [], 0
    for opcode, _, position in pickletools.genops(data):
        if opcode.name == "FRAME":
            parts.append(data[last:position])
            last = (position or 0) + 9
    return b"".join([*parts, data[last:]])


def _starts(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the places where the value of each key of the outermost dict begins; runs nothing."""
    stack: list[tuple[int, Any]] = []  # where each object begins, and what it is where its opcode says so
    memo: list[Any] = []
    for opcode, argument, at in pickletools.genops(data):
        if opcode.name in _KEEPS:
            memo.append(stack[-1][1])
            continue
        gone = _popped(stack, opcode)
        if not stack and opcode.name in {"SETITEM", "SETITEMS"}:
            items = [one for one in gone[1:] if one[1] is not pickletools.markobject]
            yield from ((value[0], key[1]) for key, value in zip(items[::2], items[1::2], strict=True))
        begin = gone[0][0] if gone else at or 0
        known = memo[argument] if opcode.name in _GETS and isinstance(argument, int) else argument
        if opcode.name == "MARK":
            known = pickletools.markobject
        stack += [(begin, known)] * len(opcode.stack_after)


def _popped(stack: list[tuple[int, Any]], opcode: pickletools.OpcodeInfo) -> list[tuple[int, Any]]:
    """Return what an opcode takes from the stack."""
    before = opcode.stack_before
    count = len(before)
    if pickletools.markobject in before:
        marks = [n for n, one in enumerate(stack) if one[1] is pickletools.markobject]
        count = len(stack) - marks[-1] + before.index(pickletools.markobject)
    start = len(stack) - count
    gone = stack[start:]
    del stack[start:]
    return gone
