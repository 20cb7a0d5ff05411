"""``python -m dispatcher.runner.trial``: a runner without a run, started by the checks of ``dispatcher doctor``.

It goes the way of a runner in a container as far as there is no run: it takes its assignment, connects to the records
with the address and the credentials of containers, and claims an attempt of a run that doesn't exist. So it claims and
changes nothing. What it found is its termination message. Exit codes: 0, a run would start here; 2, it would not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dispatcher.errors import DispatcherError, InvalidSettings, ServerUnavailable, UnknownRun
from dispatcher.runner.container.assignment import Assignment
from dispatcher.support import private_files
from dispatcher.support.interpreter import PYTHON
from dispatcher.support.urls import shown

_MESSAGE_FILE = "DISPATCHER__RUN__LAST_WORDS"

#: Packages whose versions may matter to a flow's backend.
PACKAGES = ("cloudpickle", "cryptography", "dask", "distributed")

_MOST = 2000  # characters of a problem; a termination message has 4096 bytes


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """The findings of a trial in its container.

    Attributes:
        version: of this package in the image.
        python: ``major.minor`` of the image's interpreter.
        address: of the records' server, without credentials; empty if the container got none.
        instance: the installation's id there; empty if there is none, or the server wasn't reached.
        problem: why a run would not start; empty if it would.
        denied: the server was reached, and refused the user or its rights.
        packages: versions of the packages of :data:`PACKAGES` that the image has.
    """

    version: str
    python: str
    address: str = ""
    instance: str = ""
    problem: str = ""
    denied: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return JSON, in ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> TrialReport | None:
        """Parse what :meth:`to_json` returned; None for any other text, such as a newer release's or a runner's."""
        try:
            data = {"packages": {}, **json.loads(text)}
            report = cls(**{field.name: data[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(report.packages, dict):
            return None
        texts = (report.version, report.python, report.address, report.instance, report.problem)
        texts += (*report.packages, *report.packages.values())
        valid = isinstance(report.denied, bool) and all(isinstance(text, str) for text in texts)
        return report if valid else None


def installed_version(name: str) -> str | None:
    """Return the version of a distribution that is installed here; None if it isn't."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def try_out(variables: MutableMapping[str, str]) -> TrialReport:
    """Go a runner's way without a run, and report how far it led.

    Args:
        variables: of this process; the secrets among them are removed.
    """
    packages = {name: text for name in PACKAGES if (text := installed_version(name)) is not None}
    report = TrialReport(version=version("flow-dispatcher"), python=PYTHON, packages=packages)
    try:
        assignment = Assignment.take(variables, nonce="trial")
        report = replace(report, address=shown(assignment.url))
        return replace(report, instance=_claim_nothing(assignment))
    except ServerUnavailable as error:
        return replace(report, problem=str(error)[:_MOST], denied=error.denied)
    except DispatcherError as error:
        return replace(report, problem=str(error)[:_MOST])


def _claim_nothing(assignment: Assignment) -> str:
    """Claim an attempt that doesn't exist; return the installation's id, or "" where the server has none.

    Raises:
        ServerUnavailable: the server can't be reached, or refuses what a runner does.
        InvalidSettings: the URL, or what is stored as the installation's id, isn't valid.
    """
    from dispatcher.records.redis import open_redis, stored_instance

    instance = stored_instance(assignment.url)
    if not instance:  # opening the records would make one
        return ""
    records = open_redis(assignment.url)
    try:
        records.runs.claim_attempt(
            assignment.run_id,
            attempt=assignment.attempt,
            holder=assignment.holder,
            shard=assignment.shard,
            entry={"run": assignment.run_id},
        )
    except UnknownRun:
        return instance
    finally:
        records.close()
    raise InvalidSettings(f"run {assignment.run_id}: exists, though it was made up for this trial")


def main() -> int:
    """Write the report to standard output and to the termination message; return the exit code."""
    private_files.be_alone()
    report = try_out(os.environ)
    text = report.to_json()
    sys.stdout.write(f"{text}\n")
    if path := os.environ.get(_MESSAGE_FILE):
        Path(path).write_text(text, encoding="ascii")
    return 2 if report.problem else 0


if __name__ == "__main__":
    sys.exit(main())
