"""Queues of runs, and the queues that workers serve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput, Malformed
from dispatcher.runs.routing import LONGEST, Offer, Route, check_labels, listed

LABELS = st.frozensets(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30), max_size=8)


def test_names() -> None:
    assert Route("kubernetes").queue == "kubernetes"
    assert Route("kubernetes", ("gpu", "eu")).queue == "kubernetes:eu+gpu"
    assert Route("local", ("a b", "c+d"), "1a2b").queue == "local@1a2b:a%20b+c%2Bd"


@given(LABELS, LABELS)
def test_one_queue_per_label_set(left: frozenset[str], right: frozenset[str]) -> None:
    same = Route("local", tuple(left)).queue == Route("local", tuple(right)).queue
    assert same == (left == right)


@given(LABELS)
def test_names_stay_short(labels: frozenset[str]) -> None:
    assert len(Route("local", tuple(labels)).queue.encode()) <= LONGEST


@given(LABELS, LABELS)
def test_a_worker_takes_non_empty_subsets_of_its_labels(run: frozenset[str], worker: frozenset[str]) -> None:
    offer = Offer(backends=frozenset({"local"}), labels=worker)
    expected = (bool(run) and run <= worker) or (not run and not worker)
    assert offer.serves(Route("local", tuple(run))) == expected


def test_backend_scope_and_every_label() -> None:
    offer = Offer(backends=frozenset({"local"}), scope="x", every_label=True)
    assert offer.serves(Route("local", ("any",), "x"))
    assert offer.serves(Route("local", (), "x"))
    assert not offer.serves(Route("local", (), "y"))
    assert not offer.serves(Route("remote", (), "x"))


def test_round_trips() -> None:
    route = Route("local", ("a",), "s")
    offer = Offer(backends=frozenset({"local", "remote"}), labels=frozenset({"a"}), scope="s", every_label=True)
    assert Route.from_json(route.to_json()) == route
    assert Offer.from_json(offer.to_json()) == offer


def test_a_label_that_would_read_as_several_is_quoted() -> None:
    assert listed({"gpu", "eu"}) == "eu, gpu"
    assert listed(["gpu,eu"]) == '"gpu,eu"'
    assert listed(["a b", 'say "x"', "größe"]) == '"a b", größe, "say \\"x\\""'


def test_labels_are_checked() -> None:
    assert check_labels(["b", "a", "b"]) == ("a", "b")
    assert check_labels(None) == ()
    for bad, words in (("gpu", r"write \['gpu'\]"), ([""], "non-empty"), (["a\n"], "printable"), ([3], "got 3")):
        with pytest.raises(InvalidInput, match=words):
            check_labels(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("backend", ":run:r1"),
        ("backend", "local:eu"),
        ("backend", "local@x"),
        ("backend", ""),
        ("backend", ["local"]),
        ("backend", "local\n"),
        ("scope", "a b"),
        ("scope", None),
        ("labels", ["a\x1b"]),
        ("labels", ["\ud800"]),
        ("labels", [["a"]]),
        ("labels", [""]),
    ],
)
def test_a_route_that_makes_no_queue_name_is_malformed(part: str, value: object) -> None:
    data = {"backend": "local", "labels": ["a"], "scope": "s"}
    with pytest.raises(Malformed, match=part):
        Route.from_json({**data, part: value})
