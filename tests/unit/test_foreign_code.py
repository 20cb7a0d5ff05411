"""Users' code that raises any exception where it is called: in pickles, in ``__str__``, in imports."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher import Dispatcher, FlowFailed, InvalidInput, InvalidParameters, LocalStorage, context, flow
from dispatcher.errors import INTERRUPTS, OpeningFailed, ServerUnavailable, UnknownRun
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import pack, unpack
from dispatcher.serialization.unopened import RaisedInside
from dispatcher.storage.base import PARAMETERS
from dispatcher.support.foreign_objects import describe_exception, repr_of, text_of
from tests.unit.attempts import World, double, say_how_it_ended


class Own(BaseException):
    """A user's exception that isn't derived from Exception."""


RAISED: tuple[type[BaseException], ...] = (
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    Own,
    KeyError,
    MemoryError,
    ServerUnavailable,
    UnknownRun,
)
NOT_INTERRUPTS = [kind for kind in RAISED if not issubclass(kind, INTERRUPTS)]


def throw(kind: type[BaseException]) -> Any:
    raise kind("thrown")


class Unpicklable:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return throw(self.kind)


class Unopenable:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __setstate__(self, state: dict[str, Any]) -> None:
        throw(state["kind"])


class Unspeakable(Exception):
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __str__(self) -> str:
        return str(throw(self.kind))

    __repr__ = __str__


@flow
def gives_unpicklable(kind: type[BaseException]) -> Any:
    return Unpicklable(kind)


@flow
def raises_unpicklable(kind: type[BaseException]) -> None:
    raise RuntimeError(Unpicklable(kind))


@flow
def raises_unspeakable(kind: type[BaseException]) -> None:
    raise Unspeakable(kind)


@flow
def gives_unopenable(kind: type[BaseException]) -> Any:
    return Unopenable(kind)


@flow
def gives_unspeakable(kind: type[BaseException]) -> Any:
    return Unspeakable(kind)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as client:
        yield client


@pytest.mark.parametrize("kind", RAISED)
def test_a_result_whose_pickling_raises_fails_its_run(world: World, kind: type[BaseException]) -> None:
    done = world.run(world.submit(gives_unpicklable, {"kind": kind}, LocalEnvironment(on_exit=say_how_it_ended)))
    assert (done.state, done.exit_call) == (State.FAILED, ExitCall.CALLED)
    assert done.outcome is not None
    assert done.outcome.cause is Cause.USER_ERROR
    assert "the result of flow 'gives_unpicklable' can't be sent: " in done.outcome.message
    assert kind.__qualname__ in done.outcome.message
    assert "in __reduce__" in done.outcome.traceback


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("tested", [raises_unpicklable, raises_unspeakable])
def test_an_exception_that_raises_as_it_is_described_fails_its_run(
    world: World, tested: Any, kind: type[BaseException]
) -> None:
    done = world.run(world.submit(tested, {"kind": kind}))
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert done.outcome.reason in {"RuntimeError", "Unspeakable"}


@pytest.mark.parametrize("kind", RAISED)
def test_parameters_whose_opening_raises_fail_their_run(world: World, kind: type[BaseException]) -> None:
    parameters = {"x": Unopenable(kind)}
    which = "" if issubclass(kind, INTERRUPTS) else "parameter 'x': "
    done = world.run(world.submit(double, parameters, LocalEnvironment(on_exit=say_how_it_ended)))
    assert (done.state, done.exit_call) == (State.FAILED, ExitCall.CALLED)
    assert done.outcome is not None
    assert (done.outcome.cause, done.outcome.reason) == (Cause.USER_ERROR, kind.__qualname__)
    assert f"the parameters of flow 'double' can't be opened: {which}" in done.outcome.message
    assert "thrown" in done.outcome.message
    assert "in __setstate__" in done.outcome.traceback
    assert "OpeningFailed" not in done.outcome.traceback


@pytest.mark.parametrize("kind", NOT_INTERRUPTS)
def test_a_flow_whose_opening_raises_fails_its_run(world: World, kind: type[BaseException]) -> None:
    unopenable = Unopenable(kind)

    @flow
    def holds() -> Any:
        return unopenable

    done = world.run(world.submit(holds))
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert done.outcome.message.startswith(f"flow 'holds' can't be opened: {kind.__qualname__}: ")


@pytest.mark.parametrize("kind", NOT_INTERRUPTS)
def test_parameters_whose_pickling_raises_are_refused(client: Dispatcher, kind: type[BaseException]) -> None:
    with pytest.raises(InvalidParameters, match=f"parameters of flow 'double' can't be sent: .*{kind.__qualname__}"):
        client.submit(double, {"x": Unpicklable(kind)})


@pytest.mark.parametrize("kind", NOT_INTERRUPTS)
def test_a_result_whose_opening_raises_is_an_error_of_ours(client: Dispatcher, kind: type[BaseException]) -> None:
    run = client.submit(gives_unopenable, {"kind": kind})
    assert run.state is State.SUCCEEDED
    with pytest.raises(
        InvalidInput, match=f"the result of run {run.id} can't be opened here: {kind.__qualname__}"
    ) as caught:
        run.result()
    assert type(caught.value.__cause__) is kind


def test_the_error_of_opening_can_be_printed(client: Dispatcher) -> None:
    class Steers(Exception):
        def __str__(self) -> str:
            return "\x1b[2J" + "x" * 10_000

    run = client.submit(gives_unopenable, {"kind": Steers})
    with pytest.raises(InvalidInput, match=re.escape(r"\x1b[2J")) as caught:
        run.result()
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_passes_through(client: Dispatcher, kind: type[BaseException]) -> None:
    run = client.submit(gives_unopenable, {"kind": kind})
    with pytest.raises(kind):
        run.result()
    with pytest.raises(kind):
        pack(Unpicklable(kind), subject="it")


@pytest.mark.parametrize("kind", NOT_INTERRUPTS)
def test_an_exception_whose_opening_raises_leaves_its_message(client: Dispatcher, kind: type[BaseException]) -> None:
    class Raised(Exception):
        def __setstate__(self, state: object) -> None:
            throw(kind)

    @flow
    def raises() -> None:
        error = Raised("first")
        error.note = "state"  # type: ignore[attr-defined]
        raise error

    error = client.submit(raises).exception()
    assert isinstance(error, FlowFailed)
    assert "first" in str(error)
    assert error.__cause__ is None
    assert f"can't be opened here: {kind.__qualname__}" in "".join(error.__notes__)


def test_an_attribute_that_a_users_object_lacks_is_no_missing_package() -> None:
    class Lacks:
        def __init__(self) -> None:
            self.state = 1

        def __setstate__(self, state: object) -> None:
            self.nothing  # type: ignore[attr-defined]  # noqa: B018

    with pytest.raises(OpeningFailed, match=r"AttributeError: .*'nothing'"):
        unpack(pack(Lacks(), subject="it"))


def test_on_exit_sees_the_exception_and_may_raise_anything(world: World) -> None:
    def leave() -> None:
        context.logger.info("%s", type(context.exception).__name__)
        raise Own

    done = world.run(world.submit(gives_unpicklable, {"kind": Own}, LocalEnvironment(on_exit=leave)))
    assert (done.state, done.exit_call) == (State.FAILED, ExitCall.RAISED)
    assert world.texts(done)[0] == "InvalidInput"


@flow
def leaves(how: str) -> Any:
    if how == "fork":
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return "the child"
    return throw(SystemExit)


def test_a_flow_in_a_process_of_its_own_answers_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    run = storage.get_env_runner(storage.add_flow(leaves))
    assert run({**os.environ, PARAMETERS: '{"how": "fork"}'}) == 0
    with pytest.raises(RaisedInside, match="SystemExit: thrown"):
        run({**os.environ, PARAMETERS: '{"how": "exit"}'})


def test_texts_of_foreign_objects() -> None:
    class Text(str):
        def __getitem__(self, key: object) -> str:
            return str(throw(Own))

    class Shows:
        def __str__(self) -> str:
            return Text("it")

    assert text_of(Shows()) == "it"
    assert text_of(Unspeakable(SystemExit)) == ""
    assert describe_exception(Unspeakable(Own)) == "Unspeakable"
    assert repr_of(Unspeakable(Own)) == "<Unspeakable>"
    assert len(repr_of("x" * 10**6)) < 200
