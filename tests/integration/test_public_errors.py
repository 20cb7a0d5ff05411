"""Public calls on malformed and forged records raise only errors of the project, and the command explains each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher import Dispatcher, Run
from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.records.logs import Line
from dispatcher.runs import indexes
from dispatcher.runs.states import State
from tests.integration.intruder import Intruder, one
from tests.integration.test_malformed_records import records_of
from tests.integration.workers import Bench, Worker
from tests.unit.command import call

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(34),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:No live worker"),
    pytest.mark.filterwarnings("ignore:run .* waits"),
]

CALLS: dict[str, Callable[[Run[Any]], object]] = {
    "state": lambda run: run.state,
    "done": lambda run: run.done(),
    "result": lambda run: run.result(timeout=0.1),
    "exception": lambda run: run.exception(timeout=0.1),
    "wait": lambda run: run.wait(timeout=0.1),
    "events": lambda run: list(run.events()),
    "logs": lambda run: list(run.logs()),
    "explain": lambda run: run.explain(),
    "timeline": lambda run: str(run.timeline()),
    "repr": repr,
    "cancel": lambda run: run.cancel(),
}


def variants(template: dict[bytes, bytes]) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """Yield records that a client or a runner could not have."""
    yield from records_of(template).items()
    open_record = {name: value for name, value in template.items() if name not in {b"ended_at", b"outcome"}}
    for state in (*State, "NEXT"):
        for base, of in ((template, "ended"), (open_record, "open")):
            yield f"{of} {state}", {**base, b"state": str(state).encode()}
            yield (
                f"{of} {state} elsewhere",
                {**base, b"state": str(state).encode(), b"request": b'{"shard":"fake/1","epoch":1}', b"epoch": b"7"},
            )
            yield (
                f"{of} {state} with on_exit",
                {**base, b"state": str(state).encode(), b"exit_call": b"due", b"due_at": b"1.0", b"settled_at": b"1.0"},
            )


@pytest.fixture
def forged(bench: Bench, intruder: Intruder, start_worker: Callable[..., Worker]) -> dict[str, str]:
    """Ids of forged records, by their variant. No worker lives any more."""
    worker = start_worker(concurrency=1)
    template = intruder.template()
    worker.end()
    ids = {}
    for number, (name, fields) in enumerate(variants(template)):
        ids[name] = f"forged{number}"
        intruder.record(ids[name], fields, index={indexes.ALL: 1e10 + number})
    return ids


def test_calls_raise_only_errors_of_the_project(client: Dispatcher, forged: dict[str, str]) -> None:
    escaped = []
    for name, run_id in forged.items():
        for title, make_call in CALLS.items():
            try:
                make_call(client.get(run_id))
            except DispatcherError:
                continue
            except Exception as error:
                escaped.append(f"{title} of {name}: {error!r}")
    list(client.runs(limit=None))
    assert escaped == []


def test_commands_explain_each_error(client: Dispatcher, forged: dict[str, str], server_url: str) -> None:
    puzzling = []
    for name, run_id in forged.items():
        for words in (["show"], ["explain"], ["logs"], ["cancel"]):
            result = call(*words, run_id, "--url", server_url)
            if "--debug shows where" in result.output or result.exit_code == 6:
                puzzling.append(f"{words[0]} of {name}: {result.output}")
    assert puzzling == []
    assert call("list", "--url", server_url, "--limit", "200").exit_code == 0
    assert call("status", "--url", server_url).exit_code == 0


def test_a_cancel_in_a_state_of_another_release(client: Dispatcher, bench: Bench, intruder: Intruder) -> None:
    run = client.submit(one)
    intruder.server.hset(intruder.keys.run(run.id), "state", "NEXT")
    with pytest.raises(InvalidInput, match="another release"):
        run.cancel()


@pytest.mark.parametrize("follow", [False, True])
def test_logs_and_events_whose_keys_have_another_type(
    client: Dispatcher, bench: Bench, intruder: Intruder, follow: bool
) -> None:
    """Leave out what cannot be read; a follower goes on until the end of the run."""
    run = client.submit(one)
    bench.records.logs.append(run.id, [Line(attempt=1, number=1, time=0.0, stream="stdout", text="a line")])
    assert [line.text for line in run.logs()] == ["a line"]
    for key in (intruder.keys.logs(run.id), intruder.keys.lines(run.id), intruder.keys.events(run.id)):
        intruder.server.delete(key)
    intruder.server.hset(intruder.keys.logs(run.id), "x", "y")
    intruder.server.xadd(intruder.keys.lines(run.id), {"x": "y"})
    if follow:
        run.cancel()
    intruder.server.delete(intruder.keys.events(run.id))
    intruder.server.hset(intruder.keys.events(run.id), "x", "y")
    assert list(run.logs(follow=follow)) == []
    assert list(run.events()) == []
    assert bench.records.logs.tail(run.id, 10) == []
