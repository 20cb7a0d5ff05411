"""The doctor's conclusions from a container in which :mod:`dispatcher.runner.trial` ran. Pure; backends start it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from backends.container.failed_starts import meaning
from dispatcher.inspection.finding import Finding, ok, problem, warning
from dispatcher.runner.trial import TrialReport, installed_version
from dispatcher.runs.attempt import Attempt
from dispatcher.support.ids import new_id
from dispatcher.support.interpreter import PYTHON

#: Advice of messages that is meant for a worker's own settings, not for those of containers.
_ADVICE = re.compile(r"; (start the server, or )?check DISPATCHER__URL.*$")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial.

    Attributes:
        place: where its container runs, for people.
        image: of its container.
        prefix: of the variables of the backend's settings, such as ``DISPATCHER__KUBERNETES__``.
        variable: the setting that gives containers the records' address; empty if they were given none.
        installation: the id of the installation at the worker's own address; empty if there is none yet; None if the
            doctor can't reach it.
        own_users: attempts have Redis users of their own, which a trial hasn't.
        packages: distributions that the image must have, in the versions that are installed here.
    """

    place: str
    image: str
    prefix: str
    variable: str
    installation: str | None
    own_users: bool = False
    packages: tuple[str, ...] = ()


def trial_attempt(environment: Mapping[str, str], variables: Mapping[str, str], *, start_within: float) -> Attempt:
    """Return the attempt of a trial, of a run that doesn't exist and of an installation that doesn't either.

    Args:
        environment: JSON of the environment.
        variables: that every runner of the worker gets.
        start_within: seconds that its container may take to start, and to run.
    """
    run_id = new_id()
    own = {"ID": run_id, "ATTEMPT": "1", "SHARD": "doctor/0"}
    return Attempt(
        run_id=run_id,
        number=1,
        name=f"flow-{run_id}-doctor",
        instance=f"doctor-{run_id}",
        shard=own["SHARD"],
        environment=environment,
        variables={**variables, **{f"DISPATCHER__RUN__{name}": value for name, value in own.items()}},
        flow="dispatcher doctor",
        start_within=start_within,
        timeout=start_within,
    )


def trial_secrets() -> dict[str, str]:
    """Return secrets of the form that runners have, which open nothing."""
    return {f"DISPATCHER__RUN__{name}": secrets.token_hex(32) for name in ("SEAL", "SPEC", "TOKEN")}


def judge(trial: Trial, report: TrialReport) -> Iterator[Finding]:
    """Yield what a report says of the image, and of the way from the container to the records."""
    yield _image(trial, report)
    if trial.packages:
        yield _packages(trial, report)
    if trial.variable:
        yield _server(trial, report)


def judge_failure(trial: Trial, log_tail: Sequence[str]) -> Finding | None:
    """Return what the last lines of a container say that ended without a report; None if they say nothing of it."""
    text = meaning(log_tail)
    if text is None:
        return None
    return problem("image", f"{trial.image}: {text}", _build(trial))


def _image(trial: Trial, report: TrialReport) -> Finding:
    ours = version("flow-dispatcher")
    text = f"{trial.image}: flow-dispatcher {report.version}, Python {report.python}"
    if report.version != ours:
        return problem("image", f"{text}; here it is flow-dispatcher {ours}", _build(trial))
    if report.python != PYTHON:
        remedy = (
            f"build the image on Python {PYTHON} (--build-arg BASE=python:{PYTHON}-slim), or submit with Python "
            f"{report.python}"
        )
        return problem("image", f"{text}; here it is Python {PYTHON}, whose flows don't open in the other", remedy)
    return ok("image", text)


def _packages(trial: Trial, report: TrialReport) -> Finding:
    missing = [name for name in trial.packages if name not in report.packages]
    if missing:
        text = f"{trial.image}: {', '.join(missing)} isn't installed in it"
        return problem("packages", text, f"build it with --build-arg EXTRAS=[dask-kubernetes]; {_build(trial)}")
    shown = ", ".join(f"{name} {report.packages[name]}" for name in trial.packages)
    others = {name: installed for name in trial.packages if (installed := installed_version(name)) is not None}
    if differing := [name for name, here in others.items() if here != report.packages[name]]:
        text = ", ".join(f"{name} {others[name]}" for name in differing)
        return warning(
            "packages",
            f"{trial.image}: {shown}; here: {text}",
            "install the same versions, if pickles of flows don't open there",
        )
    return ok("packages", f"{trial.image}: {shown}")


def _build(trial: Trial) -> str:
    return (
        f"build the image of this release ({version('flow-dispatcher')}) with compose/Dockerfile, let the nodes have "
        f"it, and name it in {trial.prefix}IMAGE"
    )


def _server(trial: Trial, report: TrialReport) -> Finding:
    if report.denied and trial.own_users:
        return ok("address", f"{trial.place}: {report.address} answers; attempts' own users weren't tried")
    if report.problem:
        return problem("address", f"{trial.place}: {_ADVICE.sub('', report.problem)}", _remedy(trial, report))
    there = f"installation {report.instance}" if report.instance else "no installation yet"
    if trial.installation is not None and report.instance != trial.installation:
        text = f"{trial.place}: {there} at {report.address}, but {trial.installation or 'none'} at DISPATCHER__URL"
        return problem("address", text, f"let {trial.variable} name the same server and database as DISPATCHER__URL")
    return ok("address", f"{trial.place}: {report.address} answers, {there}")


def _remedy(trial: Trial, report: TrialReport) -> str:
    if report.denied:
        return f"correct user, password and rights in {trial.variable} (the page on security: the user `runner`)"
    return f"set {trial.prefix}URL to the server's address as containers reach it, and let network policies pass it"
