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

What happens to runs when workers, the server or the network fail. `make chaos` measures it on real processes and a
real server. After every fault it compares the records, the answers that clients got, what the container service
observed, and the events that a subscriber received. It checks these invariants:

- each accepted run ends in exactly one state, which never changes;
- user code is started at most once per attempt;
- each attempt has one `exited` event, which is delivered at least once;
- nothing is left over.

In these tests the server writes each change to its append-only file before it answers, so that a crash loses nothing
that was acknowledged. With `appendfsync everysec` a killed server may lose the last second, or two if its disk is
slow. Row 13 tests that, and `always` avoids it.
"""

_ROWS = """## Every kind of fault

Each row of the fault matrix has its own tests. The invariants above are checked after each test.

"""

_ROWS_TABLE = """
| row | fault | tests run | skipped | verdict |
|---:|---|---:|---:|---|
"""

_FIGURES = """## Recovery

Seconds from a fault until work continues, at the default timings (a lease of 30 s, renewed every 10 s; doorbells
checked every 2 s). A worker that dies is considered dead once its lease has ended; until then its flows might still
run.

"""

_FIGURES_TABLE = """
| figure | samples | min | p50 | p95 | p99 | max | bound | verdict |
|---|---:|---:|---:|---:|---:|---:|---:|---|
"""

_SOAK = """## Soak test

Clients submit, cancel and wait through the public interface. Every few seconds a process, a connection or the server
is killed, frozen, cut off, slowed down or removed. Leases, ticks and polls are fifteen times as fast as usual, so that
more happens in less time.

"""

_MATRIX = """## Every step between two side effects

There is a failpoint at each step between two side effects. At each failpoint, on each backend whose runs reach it, the
process dies, raises an exception, freezes for longer than its lease, or completes the step and doesn't get the reply.

"""

_MODEL = """## A model of the records

Random histories, on records in memory and on a server. The invariants are checked after every step.

"""

#: By part: what `make chaos` plays, and what stands in its place in CI.
FORMS: Mapping[str, tuple[str, str]] = {
    "rows": (
        "row 6 lasts ten minutes, and in row 14 the server is down for ten (of simulated time: all times are a 15th)",
        "ten seconds of row 6, and two simulated minutes of row 14",
    ),
    "matrix": (
        "every kind of failure on every backend",
        "every kind of failure on the local and the container backend; on the remote one, which shares the local one's "
        "path, one per failpoint",
    ),
    "recovery": (
        "the samples that the table counts, including an outage of ten minutes",
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
    if any(test.rows for test in results.tests):
        yield _ROWS + _form(results, "rows") + _cluster(results) + _ROWS_TABLE + "\n".join(_rows(results)) + "\n"
    if matrix := results.notes.get("matrix"):
        yield _MATRIX + _form(results, "matrix") + _matrix(matrix)
    if results.figures:
        yield _FIGURES + _form(results, "recovery") + _FIGURES_TABLE + "\n".join(_figures(results)) + "\n"
        yield "![Seconds from a fault until things go on](images/faults-recovery.svg)\n"
    for soak in results.soaks:
        yield _SOAK + _form(results, "soak") + "\n" + _soak(soak)
    if steps := {name: note for name, note in results.notes.items() if name.startswith("steps on ")}:
        counts = (f"{note['done']:,} {name.replace('redis', 'a server')}" for name, note in steps.items())
        yield _MODEL + _form(results, "model") + "Done: " + "; ".join(counts) + ".\n"


def _machine(results: Results) -> str:
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Measured on {results.at[:10]}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, {packages}. The data are "
        f"in `tests/chaos/data/{results.at[:10]}.json`. Each part says whether it was run in the long form of "
        "`make chaos` or in the short one that tests every change.\n"
    )


def _form(results: Results, part: str) -> str:
    """Name the form in which a part was run, and describe the other one."""
    if part not in results.parts:
        return ""
    played = results.parts[part]
    long, bounded = FORMS[part]
    at = played.at[:16].replace("T", " ")
    if played.long:
        return f"Run in the long form ({at} UTC): {long}. Every change is tested with the short form: {bounded}.\n"
    return f"Run in the short form, which tests every change ({at} UTC): {bounded}. The long form: {long}.\n"


def _cluster(results: Results) -> str:
    """Date the tests that need a cluster, and list those that were skipped without one."""
    text = ""
    if played := results.parts.get("kubernetes"):
        at = played.at[:16].replace("T", " ")
        text = (
            "\nThe tests of rows 22 to 27, and of 3 and 4, that need a Kubernetes cluster were "
            f"run separately ({at} UTC). The other tests of these rows use an API server in their own process.\n"
        )
    if played := results.parts.get("forgery"):
        text += f"\nThe tests of row 34 were run separately ({played.at[:16].replace('T', ' ')} UTC).\n"
    for reason, rows in results.missing().items():
        text += (
            f"\nSkipped, and not part of the verdicts: tests of {_listed(rows)}. {reason or 'No reason recorded'}.\n"
        )
    return text


def _listed(rows: Sequence[int]) -> str:
    return f"{'row' if len(rows) == 1 else 'rows'} {', '.join(map(str, rows))}"


def _matrix(matrix: Mapping[str, Any]) -> str:
    return (
        f"\n{matrix['failpoints']} failpoints, {matrix['cases']:,} cases, {matrix['runs']:,} runs; {matrix['deaths']} "
        f"workers died. Violations: **{matrix['wrong']}**.\n"
    )


def _rows(results: Results) -> Iterator[str]:
    for row, fault in ROWS.items():
        skipped = len(results.skipped(row))
        yield f"| {row} | {fault} | {len(results.of_row(row)) - skipped} | {skipped} | {results.verdict(row)} |"


def _figures(results: Results) -> Iterator[str]:
    for measured in results.figures:
        values = measured.samples
        cells = [min(values), *(percentile(values, share) for share in (50, 95, 99)), max(values)]
        row = " | ".join(f"{cell:.1f}" for cell in cells)
        verdict = "pass" if measured.passes else "fail"
        yield f"| {measured.figure.name} | {len(values)} | {row} | {measured.figure.bound_text} | {verdict} |"


def _soak(soak: dict[str, Any]) -> str:
    counts = soak["counts"]
    runs = counts["runs"]
    lines = [
        f"{runs:,} runs and {counts['faults']:,} faults in {soak['seconds'] / 60:.0f} minutes (seed {soak['seed']}): "
        f"**{len(soak['violations'])} violations**.",
    ]
    if not soak["violations"]:
        lines.append(
            f"With 95 % confidence fewer than {3 / runs:.2g} of all runs have a violation (rule of three). This "
            "doesn't prove that there is never one."
        )
    lines += ["", *(f"- {finding}" for finding in soak.get("found", ()))]
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
    for measured in results.figures:
        ordered = sorted(measured.samples)
        shares = [(place + 1) / len(ordered) * 100 for place in range(len(ordered))]
        axes.step([ordered[0], *ordered], [0, *shares], where="post", label=measured.figure.name)
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
