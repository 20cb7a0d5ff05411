"""The search for the item of a pickled mapping that can't be opened.

An error doesn't tell which item of a pickle it comes from. So the pickle is opened again, by a slow unpickler whose
position in the pickle is known. Called by :mod:`dispatcher.serialization.pickles` after opening failed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

from dispatcher.errors import INTERRUPTS
from dispatcher.serialization.class_loading import ClassFinder

_MAX_BYTES = 2**20  # opening a larger pickle slowly takes too long

_MEMO_WRITES = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_MEMO_READS = frozenset({"GET", "BINGET", "LONG_BINGET"})


def item_of(data: bytes) -> str | None:
    """Return the key of the item that can't be opened here, of a pickled dict with texts as keys; None if unknown.

    This runs the code in the pickle again, up to the point where it raises.
    """
    if len(data) > _MAX_BYTES:
        return None
    try:
        whole = _unframed(data)
        starts = list(_starts(whole))
    except Exception:  # not a pickle of ours
        return None
    stream = io.BytesIO(whole)
    try:
        _SlowUnpickler(stream).load()
    except INTERRUPTS:
        raise
    except BaseException:  # usually the same as the first time
        position = stream.tell()
        return next((key for start, key in reversed(starts) if start < position), None)
    return None


class _SlowUnpickler(ClassFinder, pickle._Unpickler):
    """The unpickler written in Python, which reads its stream opcode by opcode."""


def _unframed(data: bytes) -> bytes:
    """Return the same pickle without frames, which would be read as a whole."""
    parts, last = [], 0
    for opcode, _, position in pickletools.genops(data):
        if opcode.name == "FRAME":
            parts.append(data[last:position])
            last = (position or 0) + 9
    return b"".join([*parts, data[last:]])


def _starts(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the offset at which each value of the outermost dict begins, and its key. Runs nothing."""
    stack: list[tuple[int, Any]] = []  # offset of each object, and its value if the opcode holds it
    memo: list[Any] = []
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name in _MEMO_WRITES:
            memo.append(stack[-1][1])
            continue
        popped = _pop(stack, opcode)
        if not stack and opcode.name in {"SETITEM", "SETITEMS"}:
            items = [item for item in popped[1:] if item[1] is not pickletools.markobject]
            yield from ((value[0], key[1]) for key, value in zip(items[::2], items[1::2], strict=True))
        begin = popped[0][0] if popped else position or 0
        content = memo[argument] if opcode.name in _MEMO_READS and isinstance(argument, int) else argument
        if opcode.name == "MARK":
            content = pickletools.markobject
        stack += [(begin, content)] * len(opcode.stack_after)


def _pop(stack: list[tuple[int, Any]], opcode: pickletools.OpcodeInfo) -> list[tuple[int, Any]]:
    """Remove the objects that an opcode takes from the stack, and return them."""
    before = opcode.stack_before
    count = len(before)
    if pickletools.markobject in before:
        marks = [index for index, item in enumerate(stack) if item[1] is pickletools.markobject]
        count = len(stack) - marks[-1] + before.index(pickletools.markobject)
    start = len(stack) - count
    popped = stack[start:]
    del stack[start:]
    return popped
