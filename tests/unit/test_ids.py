"""Forms of ids: what we make has them, what could leave its place doesn't."""

from __future__ import annotations

import pytest

from dispatcher.errors import UnknownRun
from dispatcher.runs.attempt import family, shard_of
from dispatcher.runs.routing import Offer
from dispatcher.support import ids
from tests.steering import STEERING
from workers.identity import new_identity

#: Each would leave its place in a key, a pattern, a path, a JSON string, a shell line or a terminal.
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "-rf",
    "a b",
    "a\n",
    "\na",
    "a:b",
    "a/b/c",
    'a"',
    "a'",
    "a*",
    "a?",
    "$a",
    "`a`",
    "é",
    "\ud800",
]
HOSTILE += [f"a{word}" for word in STEERING.values()]


def test_new_ids_are_ids() -> None:
    run_id = ids.new_id()
    assert ids.is_run_id(run_id)
    assert ids.check_run_id(run_id) == run_id
    assert ids.made_at(run_id) is not None


@pytest.mark.parametrize("value", ["r1", "run-1", "R_1.x", "0", "a" * 64])
def test_others_of_that_form_are_too(value: str) -> None:
    assert ids.is_run_id(value)


@pytest.mark.parametrize("value", [*HOSTILE, "a" * 65, None, 1, b"r1", ["r1"]])
def test_all_else_is_no_id(value: object) -> None:
    assert not ids.is_run_id(value)
    assert not ids.is_instance(value)
    with pytest.raises(UnknownRun, match="no run"):
        ids.check_run_id(value)  # type: ignore[arg-type]


def test_shards() -> None:
    for place in ("", "prod", "arn:aws:eks:eu-west-1:1:cluster/prod"):
        assert ids.is_shard(shard_of(family("kubernetes", place), "r1"))
    for odd in (
        "",
        "kubernetes",
        "kubernetes/",
        "/1",
        "kubernetes/x",
        "kubernetes/1\n",
        "kubernetes\x1b/1",
        "\ud800/1",
        None,
    ):
        assert not ids.is_shard(odd)


def test_workers() -> None:
    own = new_identity(Offer(backends=frozenset({"local"})), concurrency=1, celery_name="w@h")
    assert ids.is_worker_id(own.id)
    assert not any(ids.is_worker_id(odd) for odd in HOSTILE if odd != "a:b")


def test_blobs_attempts_and_subscribers() -> None:
    assert ids.is_blob("0" * 64)
    assert ids.is_blob("result-1")
    assert not any(ids.is_blob(odd) for odd in HOSTILE)
    assert ids.is_attempt(1)
    assert not any(ids.is_attempt(odd) for odd in (0, -1, True, 1.0, "1", None, 10**9))
    assert ids.is_subscriber("billing service é")
    assert not any(
        ids.is_subscriber(odd) for odd in ("", "a\n", "\ud800", "a" * 201, None, *(f"a{w}" for w in STEERING.values()))
    )
