"""The runner image: the time from process start to claim, compared with a bare Python."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from backends.fake import FakeEnvironment
from benchmarks import image, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.figures import Comparison, Figure, Pair
from benchmarks.machine import server
from dispatcher import Dispatcher
from dispatcher.connect import connect
from dispatcher.records.base import Records
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs import transitions
from dispatcher.serialization import KeyRing
from dispatcher.serialization.signing_keys import spec_digest
from dispatcher.settings import Settings

FIGURES = (
    Figure(
        name="runner image: process start to claim",
        unit="ms",
        bound=300,
        by=Comparison.DIFFERENCE,
        base="python -c pass",
        digits=0,
    ),
)

#: Runs in the container, so that the engine's own time doesn't count: a bare Python, then the runner.
_BOTH = """
import subprocess, sys, time
def spent(*arguments):
    begun = time.time()
    subprocess.run([sys.executable, "-P", *arguments], check=True)
    return begun, time.time() - begun
bare = min(spent("-c", "pass")[1] for _ in range(3))
print(bare, spent("-m", "dispatcher.runner")[0])
"""


def lacks() -> str:
    """Return the reason why no Docker engine can be used; empty if one can."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine: {error}"
    return "" if done.returncode == 0 else "no Docker engine answers"


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Build the image and start a server; each round runs one container."""
    bench.say("building the runner image")
    image.build()
    with server() as socket, tempfile.TemporaryDirectory() as folder:
        socket.parent.chmod(0o755)
        socket.chmod(0o777)  # for the image's user
        settings = ours.settings(socket)
        records = connect(settings)
        try:
            yield lambda _number: {FIGURES[0].name: _time_to_claim(settings, records, socket, Path(folder))}
        finally:
            records.close()


def _time_to_claim(settings: Settings, records: Records, socket: Path, folder: Path) -> Pair:
    with Dispatcher(settings=settings) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client warns that no worker serves it, which this function stands for
        run_id = client.submit(ours.noop, environment=FakeEnvironment(folder)).id
    record = records.runs.update(run_id, partial(transitions.claim, owner="bench"))
    request = {"shard": "fake/0", "epoch": record.epoch, "body": {}}
    record = records.runs.update(run_id, partial(transitions.intend, epoch=record.epoch, request=request))
    keys = KeyRing.from_settings(settings)
    variables = {
        "DISPATCHER__RUN__ID": run_id,
        "DISPATCHER__RUN__ATTEMPT": "1",
        "DISPATCHER__RUN__SHARD": "fake/0",
        "DISPATCHER__RUN__SPEC": spec_digest(record),
        "DISPATCHER__RUN__SEAL": keys.attempt_seal(run_id, 1).key.hex(),
        "DISPATCHER__RUN__TOKEN": keys.token(run_id, 1, record.epoch),
        "DISPATCHER__URL": settings.url or "",
        **RunnerSettings.of(settings).variables(),
    }
    options = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    mounts = ["-v", f"{socket.parent}:{socket.parent}", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/home/flow"]
    done = subprocess.run(
        ["docker", "run", "--rm", *mounts, *options, image.TAG, "python3", "-c", _BOTH],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    bare, begun = map(float, done.stdout.split()[-2:])
    started = records.runs.get(run_id)[0].started_at or float("inf")
    return Pair(ours=(started - begun) * 1000, base=bare * 1000)


PART = Part(name="container", figures=FIGURES, opened=opened, lacks=lacks)
