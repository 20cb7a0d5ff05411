"""``on_exit`` in a fresh process, after the runner died."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher.code.activation import BundleImporter, current_bundles
from dispatcher.code.cache import BundleCache
from dispatcher.errors import CancelInterrupt
from dispatcher.records.logs import Line
from dispatcher.runner import in_process as runner
from dispatcher.runner.in_process import call_on_exit
from dispatcher.runs import transitions
from dispatcher.runs.context import context
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing, to_value
from dispatcher.serialization.seals import Returned
from dispatcher.support.interpreter import PYTHON
from dispatcher.testing.modules import project
from tests.unit.attempts import SETTINGS, World, break_down, double, say_how_it_ended


@pytest.fixture
def world() -> World:
    return World()


def killed(world: World, environment: LocalEnvironment, parameters: Any = None, **outcome: Any) -> Record:
    """Return a run whose process died while the flow ran."""
    return died(world, world.submit(double, parameters or {"x": 1}, environment), **outcome)


def died(world: World, record: Record, **outcome: Any) -> Record:
    """Return the run once its process has died while the flow ran."""
    started = world.records.runs.update(
        record.id, lambda record, now: transitions.start_here(record, now, owner="w1", holder="dead")
    )
    world.records.logs.append(record.id, [Line(attempt=1, number=7, time=1.0, stream="stdout", text="last words")])
    facts = {"cause": Cause.KILLED, "message": "killed", **outcome}
    return world.records.runs.update(
        record.id,
        lambda record, now: transitions.abandon(record, now, epoch=started.epoch, outcome=Outcome(**facts)),
    )


def test_on_exit_of_a_dead_process(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    done = world.exit(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.CALLED)
    assert done.outcome is not None
    assert done.outcome.cause is Cause.KILLED
    assert world.texts(done) == ["last words", "exit: CRASHED None"]
    assert [line.number for line in world.lines(done)] == [7, 8]


class Trap(Exception):
    """Creates a file when it is opened."""

    def __init__(self, file: Path) -> None:
        super().__init__("a trap")
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def with_exception(world: World, record: Record, error: Exception) -> tuple[Record, float]:
    """Return the run with an exception that its dead process reported, and the time."""
    value = to_value(
        error, subject="e", limit_inline=10**6, limit=10**6, put=lambda _: "",
        seal=world.keys.seal(record),
        kind=Returned.EXCEPTION,
    )  # fmt: skip
    stored, now = world.records.runs.get(record.id)
    outcome = Outcome(cause=Cause.USER_ERROR, reason="Trap", message="a trap", exception=value)
    return stored.but(outcome=outcome), now


def test_on_exit_learns_of_the_exception_that_was_kept_by_its_text(world: World, tmp_path: Path) -> None:
    """A container may have made it, so a worker never opens it."""
    file = tmp_path / "opened"
    stored, now = with_exception(world, killed(world, LocalEnvironment(on_exit=say_how_it_ended)), Trap(file))
    done = call_on_exit(world.records, world.keys, SETTINGS, stored, now, owner="w2", holder="there")
    assert done.exit_call is ExitCall.CALLED
    assert world.texts(done)[-1] == "exit: FAILED FlowFailed('Trap: a trap')"
    assert not file.exists()


@pytest.mark.parametrize("contained", [True, False])
def test_of_a_container_no_sealed_parameters_are_opened(world: World, contained: bool) -> None:
    environment = LocalEnvironment(on_exit=say_the_parameters)
    record = killed(world, environment, parameters={"x": (1, 2)})
    assert world.exit(record, contained=contained).exit_call is ExitCall.CALLED
    assert world.texts(record)[-1] == ("{}" if contained else "{'x': (1, 2)}")
    record = killed(world, environment, parameters={"x": [1]})
    world.exit(record, contained=contained)
    assert world.texts(record)[-1] == "{'x': [1]}"


def say_the_parameters() -> None:
    print(dict(context.parameters))


def test_an_on_exit_that_raises_there(world: World) -> None:
    done = world.exit(killed(world, LocalEnvironment(on_exit=break_down)))
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.RAISED)


def test_it_is_called_once(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    world.exit(record)
    again = world.exit(record)
    assert again.terminal
    assert world.texts(again).count("exit: CRASHED None") == 1


def test_it_is_never_called_from_a_changed_spec(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    world.keys = KeyRing({"other": "x" * 32})
    done = world.exit(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.NOT_CALLED)
    assert world.texts(done) == ["last words"]


def test_interrupts_do_not_reach_on_exit(world: World) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: runner.current_attempt().interrupt(CancelInterrupt))  # type: ignore[union-attr]
    try:
        done = world.exit(killed(world, LocalEnvironment(on_exit=signals_itself)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done.exit_call is ExitCall.CALLED
    assert world.texts(done)[-1] == "undisturbed"


def signals_itself() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    print("undisturbed")


PROJECT = {
    "ends_there/__init__.py": "",
    "ends_there/flows.py": "from dispatcher import flow\n@flow\ndef nothing(x): ...",
    "ends_there/hooks.py": "def end():\n    print('from', __file__)",
}


def killed_in_a_project(world: World, directory: Path) -> Record:
    """Return a run of a project, whose files are gone here, with an ``on_exit`` in it."""
    with project(directory, PROJECT):
        end = importlib.import_module("ends_there.hooks").end
        environment = LocalEnvironment(on_exit=end)
        assert environment.to_json()["on_exit"] == {"ref": "ends_there.hooks:end"}
        target = importlib.import_module("ends_there.flows").nothing
        record = world.submit(target, environment=environment)
    return died(world, record)


@pytest.fixture
def importer(tmp_path: Path) -> BundleImporter:
    return BundleImporter(BundleCache(tmp_path / "cache"), PYTHON)


def test_it_imports_from_the_runs_bundle(world: World, importer: BundleImporter, tmp_path: Path) -> None:
    record = killed_in_a_project(world, tmp_path)
    assert world.exit(record, importer=importer).exit_call is ExitCall.CALLED
    assert world.texts(record)[-1].startswith(f"from {tmp_path / 'cache'}")
    importer.leave()
    assert "ends_there" not in sys.modules


def test_for_a_container_it_imports_from_no_bundle(world: World, importer: BundleImporter, tmp_path: Path) -> None:
    record = killed_in_a_project(world, tmp_path)
    done = world.exit(record, importer=importer, contained=True)
    assert done.exit_call is ExitCall.RAISED
    assert "No module named 'ends_there'" in " ".join(world.texts(record))
    assert current_bundles() == ()
    assert not (tmp_path / "cache").exists()


def test_for_a_container_it_imports_what_is_installed(world: World, importer: BundleImporter, tmp_path: Path) -> None:
    record = killed_in_a_project(world, tmp_path)
    installed = {"ends_there/__init__.py": "", "ends_there/hooks.py": "def end():\n    print('installed')"}
    with project(tmp_path, installed):
        assert world.exit(record, importer=importer, contained=True).exit_call is ExitCall.CALLED
    assert world.texts(record)[-1] == "installed"


def test_a_bundle_of_another_python_leaves_it_not_called(world: World, tmp_path: Path) -> None:
    record = killed_in_a_project(world, tmp_path)
    other = BundleImporter(BundleCache(tmp_path / "cache"), "3.9")
    done = world.exit(record, importer=other)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.NOT_CALLED)
    assert "on_exit can't be called here: code bundle packed under Python 3.11" in " ".join(world.texts(done))
