"""The doctor's conclusions from a container's report."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from backends.container.trial import Trial, judge
from dispatcher.inspection.finding import Finding, Level
from dispatcher.runner.trial import TrialReport
from dispatcher.support.interpreter import PYTHON

TRIAL = Trial(
    place="namespace flows",
    image="runner:1",
    prefix="DISPATCHER__KUBERNETES__",
    variable="DISPATCHER__KUBERNETES__URL",
    installation="ab",
)
REPORT = TrialReport(version=version("flow-dispatcher"), python=PYTHON, address="redis://records:6379/0", instance="ab")
NO_ANSWER = "the host name of redis://records:6379/0 can't be resolved; check DISPATCHER__URL, or `dispatcher doctor`"


def findings(report: TrialReport, trial: Trial = TRIAL) -> dict[str, Finding]:
    return {finding.subject: finding for finding in judge(trial, report)}


def test_all_is_well() -> None:
    assert {subject: finding.level for subject, finding in findings(REPORT).items()} == {
        "image": Level.OK,
        "address": Level.OK,
    }


@pytest.mark.parametrize(
    ("changes", "subject", "text", "remedy"),
    [
        ({"version": "0.0.1"}, "image", "flow-dispatcher 0.0.1, .*; here it is", "DISPATCHER__KUBERNETES__IMAGE"),
        ({"python": "3.99"}, "image", "Python 3.99; here it is Python", f"BASE=python:{PYTHON}-slim"),
        ({"instance": "cd"}, "address", "installation cd at redis://records:6379/0, but ab at", "same server and data"),
        ({"instance": ""}, "address", "no installation yet at redis://records:6379/0, but ab at", "same server"),
        (
            {"problem": NO_ANSWER},
            "address",
            "0 can't be resolved$",
            "set DISPATCHER__KUBERNETES__URL to .* network pol",
        ),
        (
            {"problem": "it refuses the user", "denied": True},
            "address",
            "refuses the user$",
            "user, password and rights",
        ),
    ],
    ids=["release", "Python", "another installation", "no installation", "no answer", "denied"],
)
def test_what_is_wrong_is_named_with_its_remedy(
    changes: dict[str, object], subject: str, text: str, remedy: str
) -> None:
    import re

    finding = findings(replace(REPORT, **changes))[subject]  # type: ignore[arg-type]
    assert finding.level is Level.PROBLEM
    assert re.search(text, finding.text), finding.text
    assert re.search(remedy, finding.remedy), finding.remedy


def test_the_worker_s_own_url_is_named_where_containers_get_it() -> None:
    trial = replace(TRIAL, variable="DISPATCHER__URL")
    assert "in DISPATCHER__URL" in findings(replace(REPORT, problem="no", denied=True), trial)["address"].remedy
    assert "set DISPATCHER__KUBERNETES__URL" in findings(replace(REPORT, problem="no"), trial)["address"].remedy


def test_users_of_attempts_are_not_tried() -> None:
    trial = replace(TRIAL, own_users=True)
    report = replace(REPORT, instance="", problem="it refuses the user", denied=True)
    assert findings(report, trial)["address"].level is Level.OK


def test_without_an_address_only_the_image_is_judged() -> None:
    assert set(findings(replace(REPORT, problem="no URL"), replace(TRIAL, variable=""))) == {"image"}


def test_an_installation_that_the_doctor_can_not_see() -> None:
    assert findings(REPORT, replace(TRIAL, installation=None))["address"].level is Level.OK


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", "1", '{"version": 1}', REPORT.to_json().replace('"ab"', "7")]
)
def test_what_is_no_report(text: str) -> None:
    assert TrialReport.parse(text) is None


def test_a_report_survives_json() -> None:
    assert TrialReport.parse(REPORT.to_json()) == REPORT
