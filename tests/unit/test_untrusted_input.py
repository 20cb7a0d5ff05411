"""Untrusted ids and texts are checked where they come in: variables, messages, arguments, pickles, locations."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dispatcher import Dispatcher, LocalEnvironment, LocalStorage, flow
from dispatcher.client.run import Run
from dispatcher.errors import InvalidInput, InvalidSettings, UnknownRun
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.invoke import failure
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from tests.steering import STEERING
from tests.unit.command import FLOWS, call
from workers.pool.celery_request import RunRequest

ODD = ["", "r1:events", "../r1", "r1\n", '"],["DEL","x', "\ud800", *(f"r{word}" for word in STEERING.values())]


@flow
def fine() -> int:
    return 1


VARIABLES = {"ID": "r1", "ATTEMPT": "1", "SHARD": "kubernetes/3", "SEAL": "00", "SPEC": "d", "TOKEN": "t"}


class TestVariablesOfARunner:
    def _take(self, **changes: str) -> Assignment:
        variables = {f"DISPATCHER__RUN__{name}": value for name, value in {**VARIABLES, **changes}.items()}
        return Assignment.take({**variables, "DISPATCHER__URL": "redis://h"}, nonce="n")

    def test_the_variables_of_a_worker(self) -> None:
        assert self._take().run_id == "r1"

    def test_a_user_of_its_own(self) -> None:
        assert self._take(USER="i:r1:1", PASSWORD="p").url == "redis://i%3Ar1%3A1:p@h"
        variables = {f"DISPATCHER__RUN__{name}": "x" for name in ("USER", "PASSWORD")}
        with pytest.raises(InvalidSettings):
            Assignment.take(variables, nonce="n")
        assert variables == {}, "the flow must not see them"

    @pytest.mark.parametrize("odd", ODD)
    def test_no_run(self, odd: str) -> None:
        with pytest.raises(InvalidSettings, match="DISPATCHER__RUN__ID"):
            self._take(ID=odd)

    @pytest.mark.parametrize("odd", ["0", "-1", "1.5", "", "²", "1\n", "9" * 5000])
    def test_no_attempt(self, odd: str) -> None:
        with pytest.raises(InvalidSettings, match="DISPATCHER__RUN__ATTEMPT"):
            self._take(ATTEMPT=odd)

    @pytest.mark.parametrize("odd", ["", "kubernetes", "kubernetes/x", "kube\x1b/1", "kubernetes/1\n"])
    def test_no_shard(self, odd: str) -> None:
        with pytest.raises(InvalidSettings, match="DISPATCHER__RUN__SHARD"):
            self._take(SHARD=odd)


class TestDoorbells:
    @pytest.mark.parametrize("kwargs", [*({"run_id": odd} for odd in [*ODD, None, 3, ["r1"], {"a": 1}]), {}, [], "r1"])
    def test_one_that_names_no_run(self, kwargs: object) -> None:
        assert self._run_of(kwargs) == ""

    def test_one_that_names_a_run(self) -> None:
        assert self._run_of({"run_id": "r1"}) == "r1"

    def _run_of(self, kwargs: object) -> str:
        run_id: Any = RunRequest.run_id
        return str(run_id.fget(cast(RunRequest, SimpleNamespace(kwargs=kwargs))))


class TestTheClient:
    @pytest.mark.parametrize("odd", ODD)
    def test_odd_ids_name_no_run(self, odd: str) -> None:
        with Dispatcher("memory://") as client:
            run = client.submit(fine)
            for ask in (client.get, client.cancel, client.explain):
                with pytest.raises(UnknownRun, match="no run"):
                    ask(odd)
            assert client.get_many([odd, run.id, odd]) == [None, run, None]
        with pytest.raises(UnknownRun):
            Run(odd)

    def test_a_pickled_run_is_checked_as_it_comes_back(self) -> None:
        run = Run[int]("r1")
        data = pickle.dumps(run, 0)
        assert pickle.loads(data) == run
        with pytest.raises(UnknownRun):
            pickle.loads(data.replace(b"r1", b"r/1"))

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"environment": LocalEnvironment(labels=["x"]), "tags": ["\ud800"]}, "tags"),
            ({"name": "a\u202e"}, "name"),
            ({"idempotency_key": "\ud800"}, "idempotency_key"),
        ],
    )
    def test_names_are_printable(self, options: dict[str, Any], name: str) -> None:
        with Dispatcher("memory://") as client, pytest.raises(InvalidInput, match=name):
            client.submit(fine, **options)

    def test_a_path_that_is_no_unicode_is_named(self, tmp_path: Path) -> None:
        storage = LocalStorage(f"{tmp_path}/caf\udce9")
        with Dispatcher("memory://") as client, pytest.raises(InvalidInput, match=r"storage: .*caf.udce9.*UTF-8"):
            client.submit(fine, storage=storage)


@pytest.mark.parametrize("file", ["..", ".", "../x", "/etc/passwd", ".hidden", "a\0b", "a/b", "a\n", "é", ""])
def test_a_location_names_a_file_of_its_directory(tmp_path: Path, file: str) -> None:
    with pytest.raises(InvalidInput, match="a location is"):
        LocalStorage(tmp_path).get_flow(f"{file}#{'0' * 64}")


@pytest.mark.parametrize(
    ("option", "odd"), [("--run-id", "a b"), ("--run-id", "../x"), ("--instance", "x::run"), ("--instance", "\x1b")]
)
def test_render_takes_ids(project: Path, option: str, odd: str) -> None:
    (project / "flows_of_inputs.py").write_text(FLOWS)
    done = call("render", "flows_of_inputs.py:greet", option, odd)
    assert done.exit_code == 2
    assert option in done.stderr


def test_a_scope_has_the_form_of_one() -> None:
    for odd in ("../x", "a b", "a:b", "\x1b"):
        with pytest.raises(InvalidSettings):
            Settings.load(worker={"scope": odd})


def test_the_text_of_an_exception_can_be_stored() -> None:
    outcome = failure(type("\x1bOdd", (Exception,), {})("a\ud800b"), Cause.USER_ERROR)
    assert outcome.message == "a\\ud800b"
    outcome.traceback.encode()
    outcome.reason.encode()
