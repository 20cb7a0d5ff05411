"""The page ``docs/speed.md`` and its plots, made from results that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Row
from benchmarks.parts import parts
from benchmarks.results import HEADS, Results, cells
from benchmarks.explanations import why

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
PAGE = ROOT / "docs" / "speed.md"
IMAGES = ROOT / "docs" / "images"

#: What names of parts begin with that are of runs in containers.
CLUSTERED = ("container", "kubernetes-")

_HEAD = """# Speed

How quick this is beside bare Celery, measured side by side on one server by `make bench`. Bare Celery is a prefork
worker with two processes, JSON, its Redis result backend, and a task that does nothing. Both use the same Valkey server
with its data on disk (`appendfsync everysec`); ours is broker and records at once. Both are measured in every round and
take turns at going first. *Value* is the median over the rounds of what the target is for: ours divided by the base,
unless the target has a unit. *Rounds* are its least and its greatest value. The base is bare Celery unless the notes
below the table say otherwise. *Submit* and *map* are measured twice: while nobody takes the runs, which is what one
client can do, and beside the worker that runs them, which on few cores is what client, server and worker reach
together. Seconds differ from machine to machine; ratios differ less; the counts of commands are the same everywhere,
and `make check` holds them.
"""

_KUBERNETES = """## Kubernetes

On a real API server of one node, which shares this machine with everything that is measured: etcd, API server,
controllers, scheduler and kubelet too. The bare client keeps one connection open per thread and sends the bodies that
our worker sends. Pods of the five thousand runs are played by [kwok](https://kwok.sigs.k8s.io): they start at once and
hold no process; for each a stand-in claims the attempt and reports by the attempt's own token, as its runner would.
Requests are counted by a proxy between worker and API server; a *find* is a list by the name of one Job, and counts as
a request of a run, as do all but the watches and complete lists, which all runs share.

*Provisioned* is measured twice. API servers are elsewhere, so for the first the cluster's processes are kept to all
cores but one, and either side in its turn to that one. For the second they share all cores, as everything else here
does: that compares how much processor time is left to the cluster. It needs some 15 ms of it for each Job on both
sides, but a part of that (the pod, the Job's status, their events) after its answer: the bare client, which needs
0.7 ms, is done before it; our side needs 6 ms (a pool process 3, with Celery's task; the parent 1.7, with Celery's
message and the watches; the server of the records 0.7; the client 0.4), in which the cluster does that part as well.
"""

_MISSED = """### Out of bounds, and why

Where the time goes was read from profiles (py-spy), from marks along the way of single runs, and from the server's own
statistics of its commands.

"""

_LATENCY = """## Latency

One run at a time while nothing else runs: from the submit until the flow's code begins, and until its result is in the
client.

![How many requests had begun after so many milliseconds](images/speed-start.svg)

![How many results had arrived after so many milliseconds](images/speed-result.svg)
"""

_WAITING = """## Throughput against waiting runs

What one client submits, and one worker process claims, per second, one after the other, while more and more runs wait.

![Submits and claims per second against waiting runs](images/speed-waiting.svg)
"""

_COMMANDS = """## What a run asks of the server

A submit is one script, and one round trip: it writes the record, its indexes and its event, and pushes the doorbell.
The worker takes the message (`BRPOP`) and writes two scripts, the claim and the end. It reads a run (`TIME` and
`HGETALL` in one round trip) only where it has seen none like it before, or was wrong about it: else it claims it as
what it probably is, and the script checks that. A client that waits for runs of its own process subscribes once, and
reads nothing: the notice of an end tells all; other runs are read once, as the wait begins. Commands within scripts
cost no round trip: most are events, which go into the run's own stream (those of one moment as one entry) and into the
one of all runs. Bare Celery sends a message and a result, and keeps neither a record nor events.

| command | ours, sent | ours, within scripts | bare Celery, sent |
|---|---:|---:|---:|
"""


def write(results: Results) -> None:
    """Write page and plots."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    _plots(results)
    PAGE.write_text("\n".join(_parts(results)), encoding="utf-8")


def _parts(results: Results) -> Iterator[str]:
    clustered = {name for part, found in results.rounds.items() if part.startswith(CLUSTERED) for name in found[0]}
    yield _HEAD
    yield _machine(results)
    yield from _figures([row for row in results.rows if row.figure.name not in clustered])
    if left := [part.name for part in parts() if part.name not in results.rounds]:
        yield f"Parts of the benchmark that are not in this data: {', '.join(left)}.\n"
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
        yield from _clustered(results)


def _machine(results: Results) -> str:
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    quick = "A quick run, with a tenth of each count: to be replaced by a full one. " if results.quick else ""
    place = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    parts = [part for part in results.rounds if not part.startswith(CLUSTERED)]
    return (
        f"{quick}Measured on {results.at[:10]}: {place}, Python {machine['python']}, {packages}. "
        f"{_load(results, parts)} "
        f"Every round is kept in `benchmarks/data/{results.at[:10]}.json`.\n"
    )


def _load(results: Results, parts: Sequence[str]) -> str:
    loads = [one[0] for part in parts for one in results.loads[part]]
    return (
        f"Load average over a minute, before and after each part: {min(loads):.1f} to {max(loads):.1f}; where it is "
        "above the number of cores, others used the machine too."
    )


def _figures(rows: Sequence[Row]) -> Iterator[str]:
    """The table of some figures, what they are compared with, and which are missed."""
    lines = [f"| {' | '.join(HEADS)} |", f"|---|{'---:|' * (len(HEADS) - 1)}"]
    yield "\n".join([*lines, *(f"| {' | '.join(cells(row))} |" for row in rows)]) + "\n"
    bases: dict[str, list[str]] = {}
    whys: dict[str, list[str]] = {}
    for row in rows:
        if row.figure.base not in {"", "bare Celery"}:
            bases.setdefault(row.figure.base, []).append(row.figure.name)
        if not row.passes:
            whys.setdefault(why(row.figure.name), []).append(row.figure.name)
    if bases:
        yield "\n".join(f"- compared with *{base}*: {'; '.join(names)}" for base, names in bases.items()) + "\n"
    if whys:
        yield _MISSED + "\n".join(f"- **{'; '.join(names)}.** {text}" for text, names in whys.items()) + "\n"


def _rounds(results: Results) -> str:
    """How often each part on the cluster was measured, and how busy the machine was."""
    found = {part: len(rounds) for part, rounds in results.rounds.items() if part.startswith(CLUSTERED)}
    said = ", ".join(
        f"{part} {count} (load {max(one[0] for one in results.loads[part]):.0f})" for part, count in found.items()
    )
    return f"Rounds of each part: {said}. {_load(results, list(found))}\n"


def _clustered(results: Results) -> Iterator[str]:
    """Where the time until a flow's first line goes, and what was asked of the API server."""
    for name, note in results.notes.items():
        found: Any = note
        if name.startswith("first line in a pod, "):
            side = name.partition(", ")[2]
            yield f"From the request to the first line, {side}; medians of each step in ms:\n"
            yield _columns("step", "ms", found)
        elif name.startswith("requests of "):
            yield f"R{name[1:]}:\n"
            yield _columns("request", "how many", found)


def _columns(name: str, value: str, found: Mapping[str, float]) -> str:
    lines = [f"| {name} | {value} |", "|---|---:|", *(f"| {one} | {number:,} |" for one, number in found.items())]
    return "\n".join(lines) + "\n"


def _commands(results: Results) -> str:
    ours: Any = results.notes.get("commands per run, flow-dispatcher", {"sent": {}, "inside": {}})
    bare: Any = results.notes.get("commands per run, bare Celery", {"sent": {}, "inside": {}})
    columns: list[Mapping[str, float]] = [ours["sent"], ours["inside"], bare["sent"]]
    names = sorted({name for column in columns for name in column})
    return "\n".join(
        f"| {name} | {' | '.join(f'{column[name]:g}' if name in column else '' for column in columns)} |"
        for name in names
    )


def _scaling(results: Results) -> str:
    lines = [
        "## More clients, more workers",
        "",
        "More of them do more until the processor is full; `cores` says who uses how much of it.",
        "",
        "| | runs per second | cores |",
        "|---|---:|---|",
    ]
    for name, note in results.notes.items():
        if name.endswith((" clients", " workers")) and not name.startswith("samples"):
            found: Any = note
            cores = ", ".join(f"{who} {used:g}" for who, used in found["cores used"].items())
            lines.append(f"| {name} | {found['runs per second']:,} | {cores} |")
    return "\n".join(lines) + "\n" + _samples(results)


def _samples(results: Results) -> str:
    """Which layers use the processor once it is full."""
    found: dict[str, Any] = {
        name.removeprefix("samples of "): note for name, note in results.notes.items() if name.startswith("samples of ")
    }
    if not found:
        return ""
    layers = dict.fromkeys(layer for shares in found.values() for layer in shares)
    rows = [
        f"| {layer} | {' | '.join(f'{shares.get(layer, 0.0):.0%}' for shares in found.values())} |" for layer in layers
    ]
    return "\n".join(
        [
            "",
            "Where the processor goes then, by samples of stacks; each counts for its innermost frame of a layer.",
            "The server's share is in the table above.",
            "",
            f"| layer | {' | '.join(found)} |",
            f"|---|{'---:|' * len(found)}",
            *rows,
            "",
        ]
    )


def _plots(results: Results) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed", "font.size": 10, "axes.grid": True})
    for what, said in (("start", "the flow's code begins"), ("result", "the result is in the client")):
        found = {name: values for name, values in results.samples.items() if name.startswith(f"{what}, ")}
        if found:
            _distribution(f"speed-{what}.svg", found, f"milliseconds until {said}")
    if "depth" in results.samples:
        _against(results.samples)


def _distribution(name: str, found: Mapping[str, list[float]], label: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for side, values in found.items():
        ordered = sorted(values)
        shares = [(place + 1) / len(ordered) * 100 for place in range(len(ordered))]
        axes.step(ordered, shares, where="post", label=side.partition(", ")[2].removesuffix(" (ms)"))
    axes.set(xlabel=label, ylabel="% of requests", xscale="log", ylim=(0, 101))
    axes.legend()
    _save(figure, name)


def _against(samples: Mapping[str, list[float]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    depths = [max(depth, 1) for depth in samples["depth"]]
    for what in ("submit", "claim"):
        rates = [1000 / value for value in samples[f"{what} at depth (ms)"]]
        axes.plot(depths, rates, marker="o", label=f"{what}s per second")
    axes.set(xlabel="runs waiting", xscale="log", ylim=(0, None))
    axes.legend()
    _save(figure, "speed-waiting.svg")


def _save(figure: Any, name: str) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(IMAGES / name, metadata={"Date": None})
    pyplot.close(figure)
