"""Which layer uses a processor: stacks of processes at work, sampled by py-spy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Layers by what the path of a frame's file holds; a sample belongs to the layer of its innermost frame that has one.
LAYERS = {
    "records: changes, scripts, replies": ("dispatcher/records/",),
    "states and events": ("dispatcher/runs/",),
    "the attempt: open, capture, run": (
        "dispatcher/runner/",
        "dispatcher/serialization/",
        "dispatcher/storage/",
        "backends/",
    ),
    "the worker": ("workers/",),
    "the client, and flows": ("dispatcher/",),
    "Celery with kombu and billiard": ("celery/", "kombu/", "billiard/", "vine/"),
    "redis-py": ("redis/",),
}
OTHERS = "Python's own library"

_RATE = 200  # per second


def missing() -> str:
    """What isn't there that sampling needs."""
    return "" if _program() else "py-spy isn't installed"


@contextmanager
def sampling(pids: Sequence[int]) -> Iterator[Counter[str]]:
    """Sample processes and their children while inside; filled as it is left: samples by layer."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="sampled-") as folder:
        files = [Path(folder, str(pid)) for pid in pids]
        options = ["--subprocesses", "--rate", str(_RATE), "--duration", "600", "--format", "raw"]
        running = [
            subprocess.Popen(
                [_program(), "record", *options, "--pid", str(pid), "--output", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid, file in zip(pids, files, strict=True)
        ]
        try:
            yield found
        finally:
            for one in running:
                one.send_signal(signal.SIGINT)  # it writes what it has
            for one in running:
                one.wait(timeout=60)
        for file in files:
            if file.exists():
                found.update(layers(file.read_text()))


def layers(stacks: str) -> Counter[str]:
    """Samples by layer, of py-spy's raw format: a line for each stack, outermost frame first, and its count."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit():
            found[layer_of(stack.split(";"))] += int(count)
    return found


def layer_of(frames: Sequence[str]) -> str:
    """The layer to which a stack belongs."""
    for frame in reversed(frames):
        _, _, path = frame.rpartition("(")
        for name, parts in LAYERS.items():
            if any(part in path for part in parts):
                return name
    return OTHERS


def _program() -> str:
    return shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy") or ""
