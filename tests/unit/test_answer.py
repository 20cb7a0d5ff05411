"""The answer of a flow in a container: only the program that asks for the result opens it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher.client.results import error_of, result_of
from dispatcher.errors import FlowFailed, InvalidInput
from dispatcher.flows.flow import Flow
from dispatcher.runs.context import context
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import pack
from dispatcher.serialization.unopened import RaisedInside, Unopened
from dispatcher.settings import Settings
from dispatcher.storage import answer
from dispatcher.storage.answer import ChildDied, Runner
from dispatcher.storage.base import NoFlowHere, Storage
from tests.unit.attempts import World, double


class Trap:
    """Creates a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


class TrapError(Exception):
    """An exception that does the same."""

    def __init__(self, file: Path) -> None:
        super().__init__("a trap")
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


class Contained(Storage):
    """A plug-in storage whose flows run in a container. It returns the answer in ``data``, in base64."""

    added = ("data",)

    def __init__(self, data: str) -> None:
        super().__init__()
        self.data = data

    def add_flow(self, flow: Flow[..., Any]) -> str:
        return "there"

    def get_flow(self, location: str) -> Flow[..., Any]:
        raise NoFlowHere

    def get_env_runner(self, location: str) -> Runner:
        def run(variables: Mapping[str, str]) -> Any:
            return answer.decode(base64.b64decode(self.data))

        return Runner(run)


def contained(data: bytes) -> Contained:
    return Contained(base64.b64encode(data).decode())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dispatcher.storages]\nContained = {__name__}:Contained\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return World()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "opened"


Attempt = Callable[..., Record]


@pytest.fixture
def attempt(world: World) -> Attempt:
    """Run an attempt in a pool process, whose flow's container answers with the given bytes."""

    def made(data: bytes, environment: LocalEnvironment | None = None) -> Record:
        storage = contained(data)
        return world.run(world.submit(double, {"x": 1}, environment, storage=storage.to_json(), location="there"))

    return made


@pytest.fixture
def link(world: World) -> Any:
    return SimpleNamespace(records=world.records, keys=world.keys, settings=Settings.load())


def test_plain_values_come_as_they_are(world: World, attempt: Attempt) -> None:
    values: list[Any] = [None, 3, [1, "ü"], {"a": [True, 0.5]}]
    for value in values:
        record = attempt(answer.encode_result(value))
        assert record.outcome is not None
        assert record.outcome.result is not None
        assert record.outcome.result.codec == "json"
        assert world.result(record) == value


def test_an_object_passes_the_worker_unopened(attempt: Attempt, link: Any, file: Path) -> None:
    record = attempt(answer.encode_result(Trap(file)))
    assert record.state is State.SUCCEEDED
    assert not file.exists()
    with pytest.raises(InvalidInput, match=r"isn't JSON .* plain=True refuses that\. If you trust .*plain=False"):
        result_of(link, record, plain=True)
    assert not file.exists()
    result_of(link, record)
    assert file.exists()


def test_an_exception_passes_the_worker_unopened(attempt: Attempt, link: Any, file: Path) -> None:
    data = answer.encode_exception(TrapError(file), loaded=True)
    record = attempt(data)
    with_exit = attempt(data, LocalEnvironment(on_exit=print_exception))
    assert with_exit.exit_call is ExitCall.CALLED
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.FAILED, Cause.USER_ERROR)
    assert (record.outcome.reason, record.outcome.message) == ("TrapError", "a trap")
    assert "TrapError: a trap" in record.outcome.traceback
    assert not file.exists()
    error = error_of(link, record, plain=True)
    assert isinstance(error, FlowFailed)
    assert "TrapError: a trap" in str(error)
    assert error.__cause__ is None
    assert any("plain=True refuses" in note for note in error.__notes__)
    assert not file.exists()
    error_of(link, record)
    assert file.exists()


def print_exception() -> None:
    print(type(context.exception).__name__)  # noqa: T201 - a flow's callback


def test_the_exception_of_the_flow_is_its_callers(attempt: Attempt, link: Any) -> None:
    error = error_of(link, attempt(answer.encode_exception(LookupError("no such day"), loaded=True)))
    assert isinstance(error.__cause__, LookupError)
    assert str(error.__cause__) == "no such day"


def test_a_flow_that_could_not_be_loaded_there(attempt: Attempt) -> None:
    record = attempt(answer.encode_exception(ImportError("no pandas"), loaded=False))
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR)
    assert (record.outcome.reason, record.outcome.message) == ("ImportError", "no pandas")


def test_on_exit_gets_only_the_text(world: World, attempt: Attempt, file: Path) -> None:
    ended = attempt(answer.encode_exception(TrapError(file), loaded=True), LocalEnvironment(on_exit=print_exception))
    assert world.texts(ended) == ["RaisedInside"]
    assert not file.exists()


def old_answer(file: Path) -> bytes:
    """Return an answer as an early version sealed it: a pair."""
    return pack((True, Trap(file)), subject="a pair")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n1",
        b'"returned"\n1',
        b"\xff\xfe\n",
        b"[" * 100_000,
        b"[" * 100_000 + b"\n",
        b'{"flow": "returned"}\n1',
        b'{"flow": "returned", "codec": "marshal"}\n1',
        b'{"flow": "returned", "codec": ["json"]}\n1',
        b'{"flow": ["returned"], "codec": "json"}\n1',
        b'{"flow": "returned", "codec": "json"}',
        b'{"flow": "returned", "codec": "json"}\n',
        b'{"flow": "returned", "codec": "json"}\n' + b"[" * 100_000,
        b'{"flow": "returned", "codec": "json"}\n\xff',
        b'{"flow": "returned", "codec": "json"}\n' + b"9" * 5000,
        b'{"flow": "returned", "codec": ""}\n1',
        b'{"flow": "raised", "codec": "json"}\n1',
        b'{"flow": "returned", "codec": "json", "more": "' + b"x" * answer.LONGEST_LINE + b'"}\n1',
    ],
)
def test_other_bytes_fail_the_run(attempt: Attempt, data: bytes) -> None:
    with pytest.raises(ChildDied):
        answer.decode(data)
    record = attempt(data)
    assert record.outcome is not None
    assert (record.state, record.outcome.reason) == (State.FAILED, "ChildDied")


def test_a_bare_pickle_is_no_answer(attempt: Attempt, file: Path) -> None:
    record = attempt(old_answer(file))
    assert record.outcome is not None
    assert "its answer can't be read" in record.outcome.message
    assert not file.exists()


def test_bytes_that_are_no_pickle_reach_the_caller_as_bad_input(attempt: Attempt, link: Any) -> None:
    record = attempt(b'{"flow": "returned", "codec": "pickle"}\nrubbish')
    assert record.state is State.SUCCEEDED
    with pytest.raises(InvalidInput, match="can't be opened here"):
        result_of(link, record)


def test_texts_are_truncated_and_can_be_stored(attempt: Attempt) -> None:
    fields: dict[str, Any] = {
        "flow": "raised",
        "codec": "",
        "type": "K" * 10_000,
        "message": "\ud800" + "m" * 100_000,
        "traceback": "t" * 500_000 + "\udfff",
    }
    record = attempt(json.dumps(fields).encode() + b"\n")
    assert record.outcome is not None
    assert record.outcome.exception is None
    assert (len(record.outcome.reason), len(record.outcome.message)) == (200, 2000)
    assert len(record.outcome.traceback) == 64 * 1024
    assert record.outcome.message.startswith("?m")
    json.dumps(record.outcome.to_json(), ensure_ascii=False).encode()
    record = attempt(b'{"flow": "raised", "codec": "", "type": 3, "message": [], "traceback": {}}\n')
    assert record.outcome is not None
    assert (record.outcome.reason, record.outcome.message, record.outcome.traceback) == ("Exception", "", "")


def test_a_direct_caller_opens_it_unless_plain(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, storage = LocalEnvironment(), contained(answer.encode_result((1, 2)))
    assert local.execute(storage, "there") == (1, 2)
    assert storage.get_env_runner("there").unopened({}) == Unopened(pack((1, 2), subject="a pair"))
    with pytest.raises(LookupError, match="inside") as caught:
        local.execute(contained(answer.encode_exception(LookupError("inside"), loaded=True)), "there")
    assert any("Where the flow ran" in note for note in caught.value.__notes__)
    monkeypatch.setenv("DISPATCHER__RESULTS__PLAIN", "true")
    assert local.execute(contained(answer.encode_result([1])), "there") == [1]
    with pytest.raises(InvalidInput, match="DISPATCHER__RESULTS__PLAIN refuses"):
        local.execute(contained(answer.encode_result(Trap(file))), "there")
    with pytest.raises(RaisedInside, match="TrapError: a trap"):
        local.execute(contained(answer.encode_exception(TrapError(file), loaded=True)), "there")
    assert not file.exists()


def test_an_answer_that_cannot_travel_is_reported() -> None:
    with pytest.raises(RaisedInside, match="can't travel"):
        answer.decode(answer.encode_result(number for number in [1]))

    class Held(Exception):
        def __init__(self) -> None:
            super().__init__("held")
            self.generator = (n for n in range(2))

    with pytest.raises(RaisedInside, match="Held: held") as caught:
        answer.decode(answer.encode_exception(Held(), loaded=True))
    assert caught.value.data is None
