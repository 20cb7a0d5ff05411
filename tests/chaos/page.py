"""The page ``docs/faults.md`` and its plots, made from results that were kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.distribution import percentile
from tests.chaos.fault_rows import ROWS
from tests.chaos.results import Results

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "chaos" / "data"
DOCS = ROOT / "docs"
NAME = "faults.md"

_HEAD = """# Faults

What happens to runs when workers, the server or the network fail: tried on real processes and a real server, measured
by `make chaos`. After every fault the records, what the clients were told, what the container service saw and what a
subscriber heard are compared: each run that was accepted ends in exactly one state, which never changes; user code is
started at most once per attempt; each attempt has one `exited` event, which is delivered at least once; nothing is left
over.

The server here writes each change to its append-only file before it answers, so that its death loses nothing that was
acknowledged. Under `appendfsync everysec` a killed server may lose the last second, or two where its disk is slow. That
is row 13, and `always` avoids it.
"""

_ROWS = """## Every kind of fault

Each row of the fault matrix has tests of its own; after each the invariants above are checked.

"""

_ROWS_TABLE = """
| row | fault | tests played | skipped | verdict |
|---:|---|---:|---:|---|
"""

_FIGURES = """## Recovery

Seconds from a fault until things go on, at the timings that everybody gets (a lease of 30 s, renewed every 10 s;
doorbells looked at every 2 s). A worker that dies is taken for dead once its lease has ended; until then its flows
might still run.

"""

_FIGURES_TABLE = """
| figure | samples | min | p50 | p95 | p99 | max | bound | verdict |
|---|---:|---:|---:|---:|---:|---:|---:|---|
"""

_SOAK = """## A soak

Clients submit, cancel and wait through the public interface, while every few seconds something is killed, frozen, cut
off, slowed down or taken away. Leases, ticks and polls are fifteen times as quick as usual, so that more happens in
less time.

"""

_MATRIX = """## Every step between two side effects

Failpoints stand at each step between two side effects. At each, on each backend whose runs come by it, whoever is there
dies, raises, stands still for longer than its lease, or has done the step and doesn't hear of it.

"""

_MODEL = """## A model of the records

Random histories, with the invariants checked after every step, on records in memory and on a server.

"""

#: By part: what `make chaos` plays, and what stands in its place in CI.
FORMS: Mapping[str, tuple[str, str]] = {
    "rows": (
        "row 6 goes on for ten minutes, and the server of row 14 is away for ten (by the clock: all times are a 15th)",
        "ten seconds of row 6, and two minutes of row 14 by that clock",
    ),
    "matrix": (
        "every kind of end on every backend",
        "every kind of end on the local and the container backend; on the remote one, whose path is the local one's, "
        "one per failpoint",
    ),
    "recovery": (
        "the samples that the table counts, among them an outage of ten minutes",
        "12 runs of dead workers, 2 containers, 15 doorbells, 4 short outages and 2 longer ones",
    ),
    "soak": ("10,000 runs", "500 runs"),
    "model": ("1,000,000 steps on memory and 100,000 on a server", "100,000 steps on memory and 10,000 on a server"),
}


def write(results: Results, docs: Path = DOCS) -> None:
    """Write page and plots."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    _plots(results, images)
    (docs / NAME).write_text("\n".join(_parts(results)), encoding="utf-8")


def _parts(results: Results) -> Iterator[str]:
    yield _HEAD
    yield _machine(results)
    if any(told.rows for told in results.tests):
        yield _ROWS + _form(results, "rows") + _cluster(results) + _ROWS_TABLE + "\n".join(_rows(results)) + "\n"
    if matrix := results.notes.get("matrix"):
        yield _MATRIX + _form(results, "matrix") + _matrix(matrix)
    if results.figures:
        yield _FIGURES + _form(results, "recovery") + _FIGURES_TABLE + "\n".join(_figures(results)) + "\n"
        yield "![Seconds from a fault until things go on](images/faults-recovery.svg)\n"
    for soak in results.soaks:
        yield _SOAK + _form(results, "soak") + "\n" + _soak(soak)
    if steps := {name: note for name, note in results.notes.items() if name.startswith("steps on ")}:
        told = (f"{note['done']:,} {name.replace('redis', 'a server')}" for name, note in steps.items())
        yield _MODEL + _form(results, "model") + "Done: " + "; ".join(told) + ".\n"


def _machine(results: Results) -> str:
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Measured on {results.at[:10]}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, {packages}. Everything is kept "
        f"in `tests/chaos/data/{results.at[:10]}.json`. Each part says whether it was played in the long form of "
        "`make chaos` or in the bounded one that every change is tested with.\n"
    )


def _form(results: Results, part: str) -> str:
    """In which form a part was played, and what the other one is."""
    if part not in results.parts:
        return ""
    played = results.parts[part]
    long, bounded = FORMS[part]
    at = played.at[:16].replace("T", " ")
    if played.long:
        return f"Played in the long form ({at} UTC): {long}. Every change is tested with less: {bounded}.\n"
    return f"Played in the bounded form that every change is tested with ({at} UTC): {bounded}. `make chaos`: {long}.\n"


def _cluster(results: Results) -> str:
    """Of the tests that need a cluster: when they were played, and what was skipped for want of one."""
    told = ""
    if played := results.parts.get("kubernetes"):
        at = played.at[:16].replace("T", " ")
        told = (
            "\nThe tests of rows 22 to 27, and of 3 and 4, that need a Kubernetes cluster were "
            f"played apart ({at} UTC); the others of these rows have an API server in their own process.\n"
        )
    if played := results.parts.get("forgery"):
        told += f"\nThe tests of row 34 were played apart ({played.at[:16].replace('T', ' ')} UTC).\n"
    for reason, rows in results.missing().items():
        told += f"\nSkipped, and no part of the verdicts: tests of {_listed(rows)}. {reason or 'No reason was kept'}.\n"
    return told


def _listed(rows: Sequence[int]) -> str:
    return f"{'row' if len(rows) == 1 else 'rows'} {', '.join(map(str, rows))}"


def _matrix(matrix: Mapping[str, Any]) -> str:
    return (
        f"\n{matrix['failpoints']} failpoints, {matrix['cases']:,} cases, {matrix['runs']:,} runs; {matrix['deaths']} "
        f"workers died. Wrong afterwards: **{matrix['wrong']}**.\n"
    )


def _rows(results: Results) -> Iterator[str]:
    for row, what in ROWS.items():
        skipped = len(results.skipped(row))
        yield f"| {row} | {what} | {len(results.of_row(row)) - skipped} | {skipped} | {results.verdict(row)} |"


def _figures(results: Results) -> Iterator[str]:
    for one in results.figures:
        values = one.samples
        cells = [min(values), *(percentile(values, share) for share in (50, 95, 99)), max(values)]
        told = " | ".join(f"{cell:.1f}" for cell in cells)
        verdict = "pass" if one.passes else "fail"
        yield f"| {one.figure.name} | {len(values)} | {told} | {one.figure.said} | {verdict} |"


def _soak(soak: dict[str, Any]) -> str:
    counts = soak["counts"]
    runs = counts["runs"]
    lines = [
        f"{runs:,} runs and {counts['faults']:,} faults in {soak['seconds'] / 60:.0f} minutes (seed {soak['seed']}): "
        f"**{len(soak['violations'])} violations**.",
    ]
    if not soak["violations"]:
        lines.append(
            f"With 95 % confidence fewer than {3 / runs:.2g} of all runs have one (rule of three); that is what was "
            "shown, not that there never is one."
        )
    lines += ["", *(f"- {one}" for one in soak.get("found", ()))]
    lines += ["", "| counted | |", "|---|---:|"]
    lines += [f"| {name} | {n:,} |" for name, n in counts.items() if not name.startswith("faults, ")]
    lines += ["", "![Faults by kind](images/faults-kinds.svg)", ""]
    lines += ["![Seconds from the end of each fault to the next progress of any run](images/faults-soak.svg)", ""]
    return "\n".join(lines)


def _plots(results: Results, images: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "faults", "font.size": 10, "axes.grid": True})
    if results.figures:
        _distributions(results, images / "faults-recovery.svg")
    for soak in results.soaks:
        kinds = {name.removeprefix("faults, "): n for name, n in soak["counts"].items() if name.startswith("faults, ")}
        _bars(kinds, images / "faults-kinds.svg")
        _spread(soak["recoveries"], images / "faults-soak.svg")


def _distributions(results: Results, file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for one in results.figures:
        ordered = sorted(one.samples)
        shares = [(place + 1) / len(ordered) * 100 for place in range(len(ordered))]
        axes.step([ordered[0], *ordered], [0, *shares], where="post", label=one.figure.name)
    axes.set(xlabel="seconds", ylabel="% of samples", xlim=(0, None), ylim=(0, 101))
    axes.legend(fontsize=8)
    _save(figure, file)


def _bars(kinds: dict[str, int], file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    names = sorted(kinds, reverse=True)
    axes.barh(names, [kinds[name] for name in names])
    axes.set(xlabel="faults")
    _save(figure, file)


def _spread(recoveries: dict[str, Sequence[float]], file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    names = sorted(recoveries, reverse=True)
    for place, name in enumerate(names):
        axes.plot(
            recoveries[name], [place] * len(recoveries[name]), marker="|", linestyle="none", color="C0", markersize=9
        )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="seconds from the end of the fault", xlim=(0, None))
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
