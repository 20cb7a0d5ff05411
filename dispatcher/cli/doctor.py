"""``doctor``: checks of this installation, each problem with its remedy."""

from __future__ import annotations

import click

from dispatcher.cli.common import GlobalOptions, common, option_json, pass_global_options
from dispatcher.cli.terminal import Painted, echo, print_json


@click.command()
@click.option("--backend", metavar="NAME", help="Check that backend, too; for kubernetes this starts a pod.")
@option_json
@common
@pass_global_options
def doctor(global_options: GlobalOptions, backend: str | None, as_json: bool) -> int:
    """Check this installation and its server.

    Prints a remedy for each problem. Exits 1 if there is a problem; warnings don't count.
    """
    from dataclasses import asdict

    from dispatcher.admin.doctor import examine
    from dispatcher.inspection.finding import Level

    marks = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "red")}
    findings = []
    for finding in examine(global_options.url, backend=backend):
        findings.append(finding)
        if as_json:
            continue
        word, color = marks[finding.level]
        echo(Painted(f"{word:<8}", color), f" {finding.subject:<12} {finding.text}")
        if finding.remedy:
            echo(f"{'':<21} → {finding.remedy}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    return 1 if any(finding.level is Level.PROBLEM for finding in findings) else 0
