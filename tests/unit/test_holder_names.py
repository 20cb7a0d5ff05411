"""Names by which pool processes hold runs."""

from __future__ import annotations

import os

import pytest

from workers.pool.holder_names import HolderNames
from workers.pool.termination import pid_of


def test_only_a_process_of_this_worker_makes_a_name_and_for_one_run() -> None:
    ours, others = HolderNames("host"), HolderNames("host")
    name = ours.new("r1")
    assert pid_of(name) == os.getpid()
    assert ours.is_authentic(name, "r1")
    assert not ours.is_authentic(name, "r2")
    assert not others.is_authentic(name, "r1")
    assert not ours.is_authentic(name.replace(f":{os.getpid()}:", ":1:"), "r1")
    assert ours.new("r1") != name


@pytest.mark.parametrize(
    "holder", ["", "::", "host:1:", "host:²:x", f"host:{'9' * 5000}:x", "host:1:é", "host:1:\ud800", "host:-1:x", "pod"]
)
def test_other_text_in_a_record_is_no_authentic_name(holder: str) -> None:
    assert not HolderNames("host").is_authentic(holder, "r1")
    pid_of(holder)
