"""Find the layers that use the processor, by sampling the stacks of busy processes with py-spy."""

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

#: Layers by parts of their files' paths; a sample belongs to the layer of its innermost frame that has one.
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
    """Return the requirement of sampling that is missing; empty if none is."""
    return "" if _program() else "py-spy isn't installed"


@contextmanager
def sampling(pids: Sequence[int]) -> Iterator[Counter[str]]:
    """Sample processes and their children inside the context. The yielded counter is filled at its end: samples by
    layer."""
    samples: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="sampled-") as folder:
        files = [Path(folder, str(pid)) for pid in pids]
        options = ["--subprocesses", "--rate", str(_RATE), "--duration", "600", "--format", "raw"]
        samplers = [
            subprocess.Popen(
                [_program(), "record", *options, "--pid", str(pid), "--output", str(file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid, file in zip(pids, files, strict=True)
        ]
        try:
            yield samples
        finally:
            for sampler in samplers:
                sampler.send_signal(signal.SIGINT)  # makes it write its samples
            for sampler in samplers:
                sampler.wait(timeout=60)
        for file in files:
            if file.exists():
                samples.update(layers(file.read_text()))


def layers(stacks: str) -> Counter[str]:
    """Count samples by layer, from py-spy's raw format: a line for each stack, outermost frame first, and its count."""
    samples: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if count.isdigit():
            samples[layer_of(stack.split(";"))] += int(count)
    return samples


def layer_of(frames: Sequence[str]) -> str:
    """Return the layer to which a stack belongs."""
    for frame in reversed(frames):
        _, _, path = frame.rpartition("(")
        for name, parts in LAYERS.items():
            if any(part in path for part in parts):
                return name
    return OTHERS


def _program() -> str:
    return shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy") or ""
