"""Code bundles: a submit with one, its first run in a warm pool process, later runs, and bundles that alternate.

A first run is compared with that of the same project, installed where the worker is, without compiled code beside it.
Each is of a project that the worker has never seen, and is packed and sent before, so that the times are those of the
run. Fetch and unpacking are measured again by themselves, and the flow measures its imports.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cloudpickle

from benchmarks import ours, projects
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import server
from dispatcher import Dispatcher, Flow, LocalEnvironment
from dispatcher.client.bundles import preview
from dispatcher.code.bundles import LOOK_AGAIN_AFTER, Bundle, Bundler
from dispatcher.code.cache import BundleCache
from dispatcher.support.interpreter import PYTHON

_VALUE = "the same flow by value"
_INSTALLED = "the same project, installed without bytecode caches"
_FIRST = "first run of a new bundle (50 files, 200 KB)"
FIGURES = (
    Figure(name="submit of a module's flow, with a bundle", unit="ms", bound=1.1, base=_VALUE, digits=3),
    Figure(name="a look at the 2,000 files of a project", unit="ms", bound=20, by=Comparison.OURS, base=""),
    Figure(name="a bundle of 2,000 files, packed", unit="ms", by=Comparison.OURS, base="", digits=0),
    Figure(name="the same after an edit", unit="ms", by=Comparison.OURS, base="", digits=0),
    Figure(name=_FIRST, unit="ms", bound=1.5, base=_INSTALLED),
    Figure(name=f"{_FIRST}: fetch", unit="ms", by=Comparison.OURS, base=""),
    Figure(name=f"{_FIRST}: unpack", unit="ms", by=Comparison.OURS, base=""),
    Figure(name=f"{_FIRST}: import", unit="ms", base=_INSTALLED),
    Figure(name="later runs of a bundle", unit="ms", bound=1.1, base=_INSTALLED, digits=2),
    Figure(name="runs of two bundles in turn", unit="ms", base="later runs of one bundle", digits=2),
)

#: Turns of both sides in a round.
_BLOCKS = 10

_NOBODY = LocalEnvironment(labels=["nobody"])


@dataclass
class _Projects:
    """Projects of which the worker has those in ``installed``; this program imports all."""

    carried: Path
    installed: Path
    used: list[str] = field(default_factory=list)

    def new(self, directory: Path) -> Flow[[], float]:
        """Write another project, and return its flow."""
        return projects.flow_of(self.written(directory))

    def written(self, directory: Path, *, files: int = 50) -> str:
        """Write another project, and return the name of its package, which isn't imported."""
        name = f"shop_{len(self.used):04}"
        self.used.append(name)
        projects.write(directory, name, files=files)
        return name


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start our worker with one pool process."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsp-bench-")))
        shops = _Projects(root / "project", root / "site-packages")
        for directory in (shops.carried, shops.installed):
            directory.mkdir()
            stack.enter_context(projects.importable(directory))
        socket = stack.enter_context(server())
        environ = {"PYTHONPATH": str(shops.installed), "PYTHONDONTWRITEBYTECODE": ""}
        stack.enter_context(ours.worker(socket, environ=environ, concurrency=1))
        client = stack.enter_context(ours.client(socket))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # no worker serves the queue of the submits
        runs = _Runs(client, shops, socket)
        runs.first()
        runs.first_installed()

        def measure(number: int) -> Measured:
            bench.say("submits")
            submits = _submits(number, client, shops, bench.count(2000))
            bench.say("2,000 files")
            packed, look, edited = _large(shops)
            bench.say("first runs")
            first = turns(number, {"ours": runs.first, "base": runs.first_installed})
            more = [turns(n, {"ours": runs.first, "base": runs.first_installed}) for n in range(bench.count(10) // 2)]
            firsts = {side: median([first[side], *(each[side] for each in more)]) for side in first}
            steps = runs.steps()
            bench.say("later runs")
            later, alternating = runs.later(number, bench.count(200))
            values = [
                submits,
                Pair(look),
                Pair(packed),
                Pair(edited),
                Pair(**firsts),
                *steps,
                later,
                Pair(alternating, later.ours),
            ]
            return {figure.name: value for figure, value in zip(FIGURES, values, strict=True)}

        yield measure


class _Runs:
    """Runs of new projects, one after the other, and what each took."""

    def __init__(self, client: Dispatcher, shops: _Projects, socket: Path) -> None:
        self._client = client
        self._shops = shops
        self._socket = socket
        self._flows: list[Flow[[], float]] = []  # with a bundle
        self._installed: list[Flow[[], float]] = []
        self._imports: list[float] = []
        self._imports_installed: list[float] = []

    def first(self) -> float:
        """Return the milliseconds of the first run of a new bundle, which was packed and sent before."""
        flow = self._shops.new(self._shops.carried)
        self._client.submit(flow, environment=_NOBODY).cancel()
        self._flows.append(flow)
        took, imports = self._run(flow)
        self._imports.append(imports)
        return took

    def first_installed(self) -> float:
        """Return the milliseconds of the first run of a new project that is installed at the worker."""
        flow = self._shops.new(self._shops.installed)
        self._client.submit(flow, environment=_NOBODY).cancel()
        self._installed.append(flow)
        took, imports = self._run(flow)
        self._imports_installed.append(imports)
        return took

    def steps(self) -> list[Pair]:
        """Return the milliseconds of fetching and unpacking a bundle, and of the imports since the last call."""
        bundle = self._bundle(self._flows[-1])
        fetch = median(_milliseconds(partial(self._client.records.blobs.get, bundle.digest)) for _ in range(5))
        unpack = median(_unpacking(bundle) for _ in range(5))
        imports = Pair(median(self._imports), median(self._imports_installed))
        self._imports, self._imports_installed = [], []
        return [Pair(fetch), Pair(unpack), imports]

    def later(self, number: int, count: int) -> tuple[Pair, float]:
        """Return the milliseconds of later runs of one bundle and of an installed project, and those of a run where
        two bundles take turns."""
        latest, previous, installed = self._flows[-1], self._flows[-2], self._installed[-1]
        each = max(count // _BLOCKS, 5)
        sides = {
            "ours": partial(self._repeated, [latest], each),
            "base": partial(self._repeated, [installed], each),
            "alternating": partial(self._repeated, [latest, previous], each),
        }
        values = _in_blocks(number, sides)
        return Pair(values["ours"], values["base"]), values["alternating"]

    def _repeated(self, flows: list[Flow[[], float]], count: int) -> float:
        for flow in flows:
            self._run(flow)
        return median(self._run(flows[number % len(flows)])[0] for number in range(count))

    def _run(self, flow: Flow[[], float]) -> tuple[float, float]:
        """Return the milliseconds from submit to result, and those of the flow's imports."""
        begin = time.perf_counter()
        imports = self._client.submit(flow, environment=ours.HERE).result(timeout=ours.TIMEOUT)
        return (time.perf_counter() - begin) * 1000, imports * 1000

    def _bundle(self, flow: Flow[[], float]) -> Bundle:
        bundle = preview(flow, ours.settings(self._socket))
        assert bundle is not None
        return bundle


def _submits(number: int, client: Dispatcher, shops: _Projects, count: int) -> Pair:
    """Return the milliseconds of a submit of a flow, with its project's bundle and by value."""
    flow = shops.new(shops.carried)
    module = sys.modules[flow.fn.__module__]

    def batch() -> float:
        begin = time.perf_counter()
        runs = [client.submit(flow, environment=_NOBODY) for _ in range(count // _BLOCKS)]
        seconds = time.perf_counter() - begin
        for run in runs:
            run.cancel()
        return seconds / len(runs) * 1000

    def by_value() -> float:
        cloudpickle.register_pickle_by_value(module)
        try:
            return batch()
        finally:
            cloudpickle.unregister_pickle_by_value(module)

    return Pair(**_in_blocks(number, {"ours": batch, "base": by_value}))


def _in_blocks(number: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure each side many times in turns, and return the medians: other programs disturb single ones."""
    blocks = [turns(number + block, sides) for block in range(_BLOCKS)]
    return {side: median(block[side] for block in blocks) for side in sides}


def _large(shops: _Projects) -> tuple[float, float, float]:
    """Return the milliseconds of packing a project of 2,000 files, of a look at it, and of packing it after an edit."""
    name = shops.written(shops.carried, files=2000)
    bundler = Bundler(python=PYTHON, limit=2**30)
    looks = partial(bundler.bundle, {f"{name}.flows"})
    packed = _milliseconds(looks)
    times = []
    for _ in range(9):
        time.sleep(LOOK_AGAIN_AFTER)
        times.append(_milliseconds(looks))
    with (shops.carried / name / "part_0.py").open("a") as file:
        file.write("\n")
    time.sleep(LOOK_AGAIN_AFTER)
    return packed, median(times), _milliseconds(looks)


def _unpacking(bundle: Bundle) -> float:
    with tempfile.TemporaryDirectory(prefix="dsp-bench-") as directory:
        return _milliseconds(partial(BundleCache(Path(directory)).get, bundle.digest, lambda _: bundle.data))


def _milliseconds(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


PART = Part(name="bundles", figures=FIGURES, opened=opened)
