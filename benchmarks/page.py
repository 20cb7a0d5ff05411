"""The page ``docs/speed.md`` and its plots, generated from saved results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.explanations import explanation
from benchmarks.figures import ResultRow
from benchmarks.parts import parts
from benchmarks.results import HEADS, BenchmarkResults, cells

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
PAGE = ROOT / "docs" / "speed.md"
IMAGES = ROOT / "docs" / "images"

#: Prefixes of the names of parts whose runs are in containers.
CLUSTERED = ("container", "kubernetes-")

_HEAD = """# Speed

The speed compared with bare Celery, measured side by side on one server by `make bench`. Bare Celery is a prefork
worker with two processes, JSON, its Redis result backend, and a task that does nothing. Both use the same Valkey server
with its data on disk (`appendfsync everysec`), which on our side is broker and records at once. Both are measured in
every round and take turns at going first. *Value* is the median over the rounds of the value that the target limits:
ours divided by the base, unless the target has a unit. *Rounds* has its minimum and its maximum. The base is bare
Celery unless the notes below the table say otherwise. *Submit* and *map* are measured twice: while no worker takes the
runs, which shows what one client can do, and beside the worker that runs them, which on few cores shows what client,
server and worker reach together. Seconds differ from machine to machine, ratios less so; the counts of commands are the
same everywhere, and `make check` tests them.
"""

_KUBERNETES = """## Kubernetes

Measured on a real API server of one node, whose etcd, API server, controllers, scheduler and kubelet share this machine
with everything that is measured. The bare client keeps one connection open per thread and sends the same bodies as our
worker. The pods of the five thousand runs are simulated by [kwok](https://kwok.sigs.k8s.io): they start at once and
have no process; for each a stand-in claims the attempt and reports by the attempt's own token, as its runner would.
A proxy between worker and API server counts the requests; a *find* is a list by the name of one Job, and counts as a
request of a run, as do all requests but the watches and complete lists, which all runs share.

*Provisioned* is measured twice. In production the API server is on other machines, so for the first figure the
cluster's processes are bound to all cores but one, and either side in its turn to that one. For the second they share
all cores, as everything else here does: that compares how much processor time is left to the cluster. The cluster needs
some 15 ms for each Job on both sides, but a part of that (the pod, the Job's status, their events) comes after its
response. The bare client, which needs 0.7 ms, is done before that part; our side needs 6 ms (a pool process 3, with
Celery's task; the parent 1.7, with Celery's message and the watches; the server of the records 0.7; the client 0.4),
in which the cluster does that part as well.
"""

_MISSED = """### Out of bounds, and why

The explanations are based on profiles (py-spy), on time stamps along single runs, and on the server's own command
statistics.

"""

_LATENCY = """## Latency

The latency of one run at a time while nothing else runs: from the submit until the flow's code begins, and until its
result is in the client.

![Share of requests that had begun, by milliseconds](images/speed-start.svg)

![Share of results that had arrived, by milliseconds](images/speed-result.svg)
"""

_WAITING = """## Throughput against waiting runs

Submits of one client and claims of one worker process per second, one after the other, while more and more runs wait.

![Submits and claims per second against waiting runs](images/speed-waiting.svg)
"""

_COMMANDS = """## Commands per run

A submit is one script, and one round trip: it writes the record, its indexes and its event, and pushes the doorbell.
The worker takes the message (`BRPOP`) and calls two scripts, the claim and the end. It reads a run (`TIME` and
`HGETALL` in one round trip) only if it has seen none like it before, or if its prediction was wrong; otherwise it
claims the run as predicted, and the script checks that. A client that waits for runs of its own process subscribes
once, and reads nothing, because the notice of an end has all that it needs; other runs are read once, at the start of
the wait. Commands within scripts cost no round trip: most are events, which go into the run's own stream (those of one
moment as one entry) and into the stream of all runs. Bare Celery sends a message and a result, and stores neither a
record nor events.

| command | ours, sent | ours, within scripts | bare Celery, sent |
|---|---:|---:|---:|
"""


def write(results: BenchmarkResults) -> None:
    """Write page and plots."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    _plots(results)
    PAGE.write_text("\n".join(_parts(results)), encoding="utf-8")


def _parts(results: BenchmarkResults) -> Iterator[str]:
    clustered = {name for part, rounds in results.rounds.items() if part.startswith(CLUSTERED) for name in rounds[0]}
    yield _HEAD
    yield _machine(results)
    yield from _figures([row for row in results.rows if row.figure.name not in clustered])
    if missing := [part.name for part in parts() if part.name not in results.rounds]:
        yield f"Parts of the benchmark that are not in this data: {', '.join(missing)}.\n"
    if any(name.startswith("start,") for name in results.samples):
        yield _LATENCY
    if "depth" in results.samples:
        yield _WAITING
    if any(name.startswith("commands per run") for name in results.notes):
        yield _COMMANDS + _commands(results) + "\n"
    if any(name.endswith(("clients", "workers")) for name in results.notes):
        yield _scaling(results)
    if clustered:
        yield _KUBERNETES
        yield _rounds(results)
        yield from _figures([row for row in results.rows if row.figure.name in clustered])
        yield from _notes_on_cluster(results)


def _machine(results: BenchmarkResults) -> str:
    quick = "A quick run, with a tenth of each count: to be replaced by a full one. " if results.quick else ""
    parts = [part for part in results.rounds if not part.startswith(CLUSTERED)]
    return (
        f"{quick}Measured on {results.at[:10]}: {_hardware(results.machine)}. {_elsewhere(results)}"
        f"{_load(results, parts)} "
        f"Every round is in `benchmarks/data/{results.at[:10]}.json`.\n"
    )


def _hardware(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    hardware = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    return f"{hardware}, Python {machine['python']}, {packages}"


def _elsewhere(results: BenchmarkResults) -> str:
    """Return which parts were measured at another time on another machine; each had both of its sides there."""
    groups: dict[tuple[str, str], list[str]] = {}
    for part, origin in results.origins.items():
        groups.setdefault((origin["at"][:10], _hardware(origin["machine"])), []).append(part)
    return "".join(f"On {at}, {hardware}: {', '.join(names)}. " for (at, hardware), names in groups.items())


def _load(results: BenchmarkResults, parts: Sequence[str]) -> str:
    loads = [averages[0] for part in parts for averages in results.loads[part]]
    return (
        f"Load average over a minute, before and after each part: {min(loads):.1f} to {max(loads):.1f}; if it is above "
        "the number of cores, other programs used the machine too."
    )


def _figures(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Yield the table of some figures, their bases of comparison, and explanations of missed bounds."""
    lines = [f"| {' | '.join(HEADS)} |", f"|---|{'---:|' * (len(HEADS) - 1)}"]
    yield "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in rows)]) + "\n"
    bases: dict[str, list[str]] = {}
    missed: dict[str, list[str]] = {}
    for row in rows:
        if row.figure.base not in {"", "bare Celery"}:
            bases.setdefault(row.figure.base, []).append(row.figure.name)
        if not row.passes:
            missed.setdefault(explanation(row.figure.name), []).append(row.figure.name)
    if bases:
        yield "\n".join(f"- compared with *{base}*: {'; '.join(names)}" for base, names in bases.items()) + "\n"
    if missed:
        yield _MISSED + "\n".join(f"- **{'; '.join(names)}.** {text}" for text, names in missed.items()) + "\n"


def _rounds(results: BenchmarkResults) -> str:
    """Return the number of rounds of each part on the cluster, and the load of the machine."""
    counts = {part: len(rounds) for part, rounds in results.rounds.items() if part.startswith(CLUSTERED)}
    listed = ", ".join(
        f"{part} {count} (load {max(averages[0] for averages in results.loads[part]):.0f})"
        for part, count in counts.items()
    )
    return f"Rounds of each part: {listed}. {_load(results, list(counts))}\n"


def _notes_on_cluster(results: BenchmarkResults) -> Iterator[str]:
    """Yield the steps until a flow's first line, and the requests to the API server."""
    for name, note in results.notes.items():
        values: Any = note
        if name.startswith("first line in a pod, "):
            side = name.partition(", ")[2]
            yield f"From the request to the first line, {side}; medians of each step in ms:\n"
            yield _columns("step", "ms", values)
        elif name.startswith("requests of "):
            yield f"R{name[1:]}:\n"
            yield _columns("request", "count", values)


def _columns(name: str, value: str, values: Mapping[str, float]) -> str:
    lines = [f"| {name} | {value} |", "|---|---:|", *(f"| {label} | {number:,} |" for label, number in values.items())]
    return "\n".join(lines) + "\n"


def _commands(results: BenchmarkResults) -> str:
    ours: Any = results.notes.get("commands per run, flow-dispatcher", {"sent": {}, "inside": {}})
    bare: Any = results.notes.get("commands per run, bare Celery", {"sent": {}, "inside": {}})
    columns: list[Mapping[str, float]] = [ours["sent"], ours["inside"], bare["sent"]]
    names = sorted({name for column in columns for name in column})
    return "\n".join(
        f"| {name} | {' | '.join(f'{column[name]:g}' if name in column else '' for column in columns)} |"
        for name in names
    )


def _scaling(results: BenchmarkResults) -> str:
    lines = [
        "## More clients, more workers",
        "",
        "The rate grows with their number until the processor is full; `cores` has the share of each.",
        "",
        "| | runs per second | cores |",
        "|---|---:|---|",
    ]
    for name, note in results.notes.items():
        if name.endswith((" clients", " workers")) and not name.startswith("samples"):
            values: Any = note
            cores = ", ".join(f"{process} {used:g}" for process, used in values["cores used"].items())
            lines.append(f"| {name} | {values['runs per second']:,} | {cores} |")
    return "\n".join(lines) + "\n" + _samples(results)


def _samples(results: BenchmarkResults) -> str:
    """Return the layers' shares of the full processor."""
    samples: dict[str, Any] = {
        name.removeprefix("samples of "): note for name, note in results.notes.items() if name.startswith("samples of ")
    }
    if not samples:
        return ""
    layers = dict.fromkeys(layer for shares in samples.values() for layer in shares)
    rows = [
        f"| {layer} | {' | '.join(f'{shares.get(layer, 0.0):.0%}' for shares in samples.values())} |"
        for layer in layers
    ]
    return "\n".join(
        [
            "",
            "Shares of the processor time then, by stack samples; each counts for its innermost frame of a layer.",
            "The server's share is in the table above.",
            "",
            f"| layer | {' | '.join(samples)} |",
            f"|---|{'---:|' * len(samples)}",
            *rows,
            "",
        ]
    )


def _plots(results: BenchmarkResults) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed", "font.size": 10, "axes.grid": True})
    for event, label in (("start", "the flow's code begins"), ("result", "the result is in the client")):
        samples = {name: values for name, values in results.samples.items() if name.startswith(f"{event}, ")}
        if samples:
            _plot_distribution(f"speed-{event}.svg", samples, f"milliseconds until {label}")
    if "depth" in results.samples:
        _plot_rates(results.samples)


def _plot_distribution(name: str, samples: Mapping[str, list[float]], label: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for side, values in samples.items():
        ordered = sorted(values)
        shares = [(place + 1) / len(ordered) * 100 for place in range(len(ordered))]
        axes.step(ordered, shares, where="post", label=side.partition(", ")[2].removesuffix(" (ms)"))
    axes.set(xlabel=label, ylabel="% of requests", xscale="log", ylim=(0, 101))
    axes.legend()
    _save(figure, name)


def _plot_rates(samples: Mapping[str, list[float]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    depths = [max(depth, 1) for depth in samples["depth"]]
    for step in ("submit", "claim"):
        rates = [1000 / value for value in samples[f"{step} at depth (ms)"]]
        axes.plot(depths, rates, marker="o", label=f"{step}s per second")
    axes.set(xlabel="runs waiting", xscale="log", ylim=(0, None))
    axes.legend()
    _save(figure, "speed-waiting.svg")


def _save(figure: Any, name: str) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(IMAGES / name, metadata={"Date": None})
    pyplot.close(figure)
