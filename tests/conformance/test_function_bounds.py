"""Bounds of calls of functions: larger calls are refused before any work, and our senders stay within them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.errors import InvalidInput, UnreadableRun
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import bounds, open_redis
from dispatcher.records.redis.installing import install
from dispatcher.records.redis.scripts import FUNCTIONS, library, script
from dispatcher.records.snapshot import WrongPrediction
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.routing import LONGEST_LABEL, MOST_LABELS
from dispatcher.runs.spec import MOST_BLOBS
from dispatcher.runs.value import Value
from dispatcher.support.parsing import MOST
from tests.conformance.products import SERVERS, emptied, served, state
from tests.conformance.specs import accept, finish, make, start

pytestmark = pytest.mark.row(34)

RECORD = "i::run:r"


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server for this module, of each installed product."""
    with served(request.param) as address:
        yield address


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    """A plain connection to the server, which has this release's functions and one record."""
    with emptied(url) as connection:
        install(url)
        connection.hset(RECORD, mapping={"version": "1", "kind": "k", "created_at": "1.5"})
        yield connection


@pytest.fixture
def records(url: str, raw: Any) -> Iterator[Records]:
    opened = open_redis(url)
    opened.runs.check = lambda record, now: None  # every signature holds
    yield opened
    opened.close()


def _told(raw: Any, expression: str) -> Any:
    """Return the value of an expression in the shared Lua code."""
    name = library().name
    asked = f"redis.register_function('told', function() return cjson.encode({expression}) end)"
    text = library().text.split("redis.register_function{", 1)[0].replace(name, "asked")
    raw.function_load(f"{text}\n{asked}", replace=True)
    return json.loads(raw.fcall("told", 0))


def _refused(raw: Any, url: str, name: str, keys: list[str], *words: Any) -> str:
    """Return the refusal of a call; check that nothing is written, and that the server answers others."""
    before = state(raw)
    with pytest.raises(redis.ResponseError) as caught:
        raw.fcall(script(name).name, len(keys), *keys, *words)
    with redis.Redis.from_url(url) as another:
        assert another.ping()
    assert state(raw) == before
    return str(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_refuses_calls_beyond_its_bounds(raw: Any, url: str, name: str) -> None:
    keys, words, size = _told(raw, "most")[name]

    assert _refused(raw, url, name, ["k"] * (keys + 1)) == f"{name}: {keys + 1} keys are more than {keys}"
    many = ["1"] * (words + 1)
    assert _refused(raw, url, name, [], *many) == f"{name}: {words + 1} arguments are more than {words}"
    if words:
        assert _refused(raw, url, name, [], b"x" * (size + 1)) == f"{name}: {size + 1} bytes are more than {size}"
    if keys:
        assert f"{size + 1} bytes" in _refused(raw, url, name, ["x" * (size + 1)])


def test_senders_and_functions_have_the_same_bounds(raw: Any) -> None:
    for name in (
        "LONGEST_JSON",
        "LONGEST_TEMPLATE",
        "MOST_PARTS",
        "MOST_RUNS",
        "MOST_STEPS",
        "MOST_WORDS",
        "MOST_APART",
        "MOST_LINES",
    ):
        assert _told(raw, name) == getattr(bounds, name), name
    assert _told(raw, "MOST_BLOBS") == MOST_BLOBS
    most = _told(raw, "most")
    assert (most["hold"][0], most["repair"][0]) == (bounds.MOST_HELD, bounds.MOST_REPAIRED)
    assert most["commit"][2] > bounds.LARGEST_CHANGE


# Lists in the arguments

COMMON = {
    "offset": 0,
    **{name: f"i::{name}:" for name in ("run", "key", "topic")},
    "its_events": ":events",
    "events": "i::events",
    "fields": ["version", "1"],
    "fact": ["{", "}"],
    "places": [],
    "blobs": [],
    "list": "",
    "queue": ["i::queues", "i::routes", "i::topic:queues", "local", '{"labels": []}'],
}

TOO_MUCH = {
    "blobs": ({"blobs": ["i::blob:x"] * 17}, "accept: 17 blobs are more than 16"),
    "places": ({"places": [[0, []]] * 201}, "accept: 201 places are more than 200"),
    "indexes": ({"places": [[0, ["i::ix:a"] * 101], [0, ["i::ix:b"] * 100]]}, "201 indexes of a run"),
    "fields": ({"fields": ["f", "v"] * 201}, "accept: 402 words of fields are more than 400"),
    "bytes": ({"fact": ["x" * 2**19, "}"]}, "bytes of JSON are more than 524288"),
    "offset": ({"offset": 1e300}, "offset"),
    "no offset": ({"offset": None}, "offset"),
    "other places": ({"places": [["soon", ["i::ix:a"]]]}, "so many seconds"),
}


@pytest.mark.parametrize(("other", "message"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_an_accept_beyond_the_bounds_is_refused(raw: Any, url: str, other: dict[str, Any], message: str) -> None:
    run = ("r1", "spec", "s", "d", "", "")
    assert message in _refused(raw, url, "accept", [], json.dumps({**COMMON, **other}), *run)
    assert raw.fcall(script("accept").name, 0, json.dumps(COMMON), *run)


def template(document: str) -> tuple[str, str]:
    """Return a template's digest, and the template."""
    return hashlib.sha1(document.encode()).hexdigest(), document


TEMPLATE = {"expect": [["version", "1"]], "reply": [], "steps": [["HSET", RECORD, "version", 3]]}

NO_TEMPLATES = {
    "too long": ({**TEMPLATE, "reply": ["x" * 2**16]}, "bytes of a template are more than 65536"),
    "many parts": ({**TEMPLATE, "steps": [["HSET", RECORD, "f", [3] * 1000]]}, "1003 parts of a template are more"),
    "a list": ([TEMPLATE], "no template"),
    "no steps": ({**TEMPLATE, "steps": None}, "no template"),
    "no fields": ({**TEMPLATE, "reply": [7]}, "no template"),
    "no values": ({**TEMPLATE, "expect": [["version"]]}, "no template"),
    "many fields": ({**TEMPLATE, "reply": ["f"] * 65}, "no template"),
    "no step": ({**TEMPLATE, "steps": [[]]}, "step 1 is no step"),
    "a command": ({**TEMPLATE, "steps": [["DEL", RECORD]]}, "step 1 is no step"),
    "a doorbell": ({**TEMPLATE, "steps": [["LPUSH", "i::local", "x"]]}, "step 1 is no step"),
    "another key": ({**TEMPLATE, "steps": [["HSET", "other::run:r", "f", "v"]]}, "leads out of this installation"),
    "a value's key": ({**TEMPLATE, "steps": [["HSET", 3, "f", "v"]]}, "leads out of this installation"),
    "a key that begins with a value": ({**TEMPLATE, "steps": [["HSET", [3, RECORD], "f", "v"]]}, "leads out of this"),
    "a number": ({**TEMPLATE, "steps": [["HSET", RECORD, "f", 1.5]]}, "step 1 has a word that is none"),
    "a high number": ({**TEMPLATE, "steps": [["HSET", RECORD, "f", 35]]}, "step 1 has a word that is none"),
    "a nested word": ({**TEMPLATE, "steps": [["HSET", RECORD, "f", [["x"]]]]}, "step 1 has a word that is none"),
}


@pytest.mark.parametrize(("document", "message"), NO_TEMPLATES.values(), ids=NO_TEMPLATES)
def test_a_template_beyond_the_bounds_is_refused(raw: Any, url: str, document: Any, message: str) -> None:
    assert message in _refused(raw, url, "prepared", [RECORD], "0", *template(json.dumps(document)), "2")


def test_a_filled_template_beyond_the_bounds_is_refused(raw: Any, url: str) -> None:
    large = template(json.dumps({**TEMPLATE, "steps": [["HSET", RECORD, "f", [3] * 900]]}))
    message = _refused(raw, url, "prepared", [RECORD], "0", *large, "x" * 1000)
    assert "bytes of steps are more than 524288" in message
    words = ["EVENTS", "i::run:r:events", "i::events", "i::topic:r", "1"]
    many = template(json.dumps({**TEMPLATE, "steps": [[*words, 3]]}))
    assert "501 events are more than 500" in _refused(raw, url, "prepared", [RECORD], "0", *many, "{}\n" * 500)
    steps = json.dumps([[*words, "{}\n" * 500]])
    assert "501 events are more than 500" in _refused(raw, url, "commit", [RECORD], "0", "1", steps)
    for key in ("i::run:r:logs", "i::run:", "i::run:r:events"):
        assert "no key of a record" in _refused(raw, url, "prepared", [key], "0", *many, "{}")


def test_a_template_is_known_by_its_own_digest(raw: Any, url: str) -> None:
    digest, document = template(json.dumps(TEMPLATE))
    assert raw.fcall(script("prepared").name, 1, RECORD, "0", digest, "", "2") == b"template"
    assert "digest" in _refused(raw, url, "prepared", [RECORD], "0", digest, document + " ", "2")
    assert "a value is missing" in _refused(raw, url, "prepared", [RECORD], "0", digest, document)
    assert "no key of a record" in _refused(raw, url, "prepared", ["i::other"], "0", digest, document, "2")
    assert raw.fcall(script("prepared").name, 1, RECORD, "0", digest, "", "2")[1] == b"1.5"
    assert raw.hget(RECORD, "version") == b"2"


def test_a_template_of_another_installation_is_unknown(raw: Any, url: str) -> None:
    digest, document = template(json.dumps({"expect": [], "reply": [], "steps": []}))
    assert len(raw.fcall(script("prepared").name, 1, RECORD, "0", digest, document)) == 3
    assert raw.fcall(script("prepared").name, 1, "j::run:r", "0", digest, "") == b"template"


def test_more_templates_than_the_server_keeps_are_sent_again(raw: Any) -> None:
    documents = [json.dumps({"expect": [], "reply": [str(number)], "steps": []}) for number in range(300)]
    for document in documents:
        raw.fcall(script("prepared").name, 1, RECORD, "0", *template(document))
    known = [raw.fcall(script("prepared").name, 1, RECORD, "0", template(d)[0], "") != b"template" for d in documents]
    assert known[-1]
    assert not known[0]


NESTED = "[" * 100_000 + "]" * 100_000

STEPS = {
    "steps": ([["ZREM", "i::ix:a", "r"]] * 501, "501 steps are more than 500"),
    "words": ([["ZREM", "i::ix:a", *["r"] * 1000]] * 4, "4008 words of steps are more than 4000"),
    "bytes": ([["HSET", RECORD, "f", "x" * 2**19]], "bytes of steps are more than 524288"),
    "no list": (7, "steps are a list"),
    "no step": ([["HSET", RECORD, "version", "2"], 7], "step 2 is no step"),
}


@pytest.mark.parametrize(("steps", "message"), STEPS.values(), ids=STEPS)
def test_a_change_beyond_the_bounds_is_refused(raw: Any, url: str, steps: Any, message: str) -> None:
    assert message in _refused(raw, url, "commit", [RECORD], "0", "1", json.dumps(steps))


def test_a_reference_to_a_missing_long_value_is_refused(raw: Any, url: str) -> None:
    steps = json.dumps([["HSET", RECORD, "version", "2"], ["HSET", RECORD, "f", {"apart": 2}]])
    message = _refused(raw, url, "commit", [RECORD], "0", "1", steps, "", "", "", "", "the only one")
    assert "step 2 has a word that was not told" in message


@pytest.mark.parametrize("name", ["accept", "commit", "prepared"])
def test_deeply_nested_json_is_refused(raw: Any, url: str, name: str) -> None:
    if name == "accept":
        _refused(raw, url, name, [], NESTED, "r1", "spec", "s", "d", "", "")
    elif name == "commit":
        _refused(raw, url, name, [RECORD], "0", "1", NESTED)
    else:
        _refused(raw, url, name, [RECORD], "0", *template(NESTED[:30_000] + NESTED[-30_000:]))


def test_a_queue_with_a_long_route_is_refused(raw: Any, url: str) -> None:
    route = json.dumps({"labels": [], "more": "x" * 2**16})
    common = {**COMMON, "queue": [*COMMON["queue"][:4], route]}  # type: ignore[index]
    assert "route" in _refused(raw, url, "accept", [], json.dumps(common), "r1", "spec", "s", "d", "", "")


# Stored values


def test_only_a_record_s_fields_of_a_huge_hash_are_replied(raw: Any) -> None:
    raw.hset(RECORD, mapping={f"f{number}": "x" for number in range(10**5)})
    raw.hset(RECORD, mapping={"state": "PENDING"})
    _, stored = raw.fcall(script("commit").name, 1, RECORD, "0", "9", "[]")
    assert stored == [b"state", b"PENDING", b"version", b"1", b"created_at", b"1.5", b"kind", b"k"]
    other = template(json.dumps({"expect": [["kind", "other"]], "reply": [], "steps": []}))
    assert raw.fcall(script("prepared").name, 1, RECORD, "0", *other)[2] == stored
    claimed = ("i::claim:r:1", "i::inbox:s", "60", "1", "holder", "", "{}", "run", "r")
    assert raw.fcall(script("claim").name, 0, "0", RECORD, *claimed)[1] == stored
    [there] = raw.fcall(script("accept").name, 0, json.dumps(COMMON), "r", "spec", "s", "d", "", "")
    assert there == stored


def test_all_fields_that_a_release_reads_are_replied(records: Records, raw: Any) -> None:
    run = accept(records, key="k")
    running = start(records, run)
    raw.hset(f"{records.instance}::run:{run.id}", "later", "field")
    change = transitions.request_cancel(run, run.created_at + 1)
    assert change is not None
    assert records.runs.commit(change)[0] == running
    assert records.runs.create([make(key="k")]) == [running]


def test_an_overlong_claim_is_ignored(raw: Any) -> None:
    raw.hset(RECORD, mapping={"state": "PENDING"})
    raw.set("i::claim:r:1", b"0\nother\n" + b"x" * 2**20)
    words = ("i::claim:r:1", "i::inbox:s", "60", "1", "holder", "", "{}", "run", "r")
    assert len(raw.fcall(script("claim").name, 0, "0", RECORD, *words)) == 2
    raw.set("i::claim:r:1", b"0\nother\n" + b"x" * 2**20)
    step = json.dumps([["HSET", RECORD, "version", "2"]])
    assert len(raw.fcall(script("commit").name, 1, RECORD, "0", "1", step, "", "", "i::claim:r:1", "")) == 1


# Our senders


def test_labels_and_tags_at_their_bounds_fit(records: Records) -> None:
    """With characters that have the longest escapes, through the life of a run, also of a predicted one."""
    words = [f"{number:02}" + "é" * ((LONGEST_LABEL - 2) // 2) for number in range(MOST_LABELS)]
    predicted = []
    for number in range(3):
        run = accept(records, labels=tuple(words), tags=words, key=f"k{number}")
        snapshot = records.runs.snapshot(run.id, "like")
        predicted.append(bool(snapshot.kind))
        try:
            claimed = records.runs.claim(snapshot, transitions.start_here, owner="w", holder="p")
        except WrongPrediction as error:
            claimed = records.runs.claim(error.snapshot, transitions.start_here, owner="w", holder="p")
        done = records.runs.finish(
            claimed, records.runs.now(), outcome=Outcome(result=Value(codec="json", inline="1")), exit_call=None
        )
        assert done.terminal
    assert predicted == [False, True, False], "their claim is too large for a template"


def test_long_values_are_passed_apart(records: Records) -> None:
    """With an inline result of the maximum size, of characters that JSON escapes."""
    running = start(records, accept(records))
    large = '"\\é\n' * 2**20
    outcome = Outcome(result=Value(codec="json", inline=large), traceback="é" * 2**16)
    epoch = running.epoch
    done = records.runs.update(running.id, lambda r, now: transitions.finish(r, now, epoch=epoch, outcome=outcome))
    assert done.outcome == outcome
    assert records.runs.get(running.id)[0] == done


def test_a_change_beyond_the_bounds_is_not_sent(records: Records, raw: Any) -> None:
    run = accept(records)
    before = state(raw)
    change = Change(before=run, after=run.but(outcome=Outcome(message="x" * (64 * 2**20))))
    with pytest.raises(UnreadableRun, match="bytes, more than"):
        records.runs.commit(change)
    assert state(raw) == before


def test_many_runs_with_blobs_of_their_own_are_held_in_portions(records: Records) -> None:
    blobs = [records.blobs.share(f"{number}".encode()) for number in range(250)]
    made = [make(blobs=(blob,)) for blob in blobs]
    assert len(records.runs.create(made)) == 250
    with pytest.raises(LookupError) as caught:
        records.runs.create([make(blobs=(name,)) for name in [*blobs, "absent1", "absent2"]])
    assert set(caught.value.args) == {"absent1", "absent2"}


def test_runs_with_long_specs_are_accepted_in_portions(records: Records) -> None:
    made = [make() for _ in range(5)]
    long = [record.but(spec_bytes=record.spec_bytes[:-1] + b" " * 10 * 2**20 + b"}") for record in made]
    assert [run.id for run in records.runs.create(long, timeout=60)] == [run.id for run in made]
    with pytest.raises(InvalidInput, match=r"more than 16,777,216"):
        records.runs.create([made[0].but(id="r-longer", spec_bytes=b"x" * (MOST + 1))])


def test_lines_are_appended_in_portions(records: Records) -> None:
    run = accept(records)
    short = [Line(attempt=1, number=n, time=0.0, stream="log", text=str(n)) for n in range(1, 1201)]
    long = [Line(attempt=1, number=n, time=0.0, stream="log", text="é" * 2**20) for n in range(1201, 1213)]
    records.logs.append(run.id, short + long)
    read, _ = records.logs.read(run.id, limit=2000)
    assert [line.number for line in read] == list(range(1, 1213))
    assert read[-1].text == long[-1].text


def test_a_spec_with_too_many_blobs_is_malformed() -> None:
    assert make(blobs=("b",) * MOST_BLOBS).spec.flow == "count"
    assert make(blobs=("b",) * (MOST_BLOBS + 1)).spec.flow == "?"


def test_an_ended_run_frees_its_blobs_once(records: Records) -> None:
    blobs = tuple(records.blobs.share(f"{number}".encode()) for number in range(MOST_BLOBS))
    assert finish(records, start(records, accept(records, blobs=blobs))).terminal
