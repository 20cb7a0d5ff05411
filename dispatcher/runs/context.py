"""The context of a run: ``from dispatcher import context``.

Set by the runner and by ``Environment.execute`` through :func:`entered` and :func:`ended`; read by flows, ``on_start``
and ``on_exit``. Outside a run everything is None or empty, so that a flow can be tested as a function.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.runs.states import State


@dataclass
class Frame:
    """The run in which some code is running."""

    run_id: str | None = None
    attempt: int | None = None
    flow: str | None = None
    labels: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tags: tuple[str, ...] = ()
    state: State | None = None
    exception: BaseException | None = None
    raised: bool = False


_NOWHERE = Frame()
_frame: ContextVar[Frame] = ContextVar("dispatcher_run", default=_NOWHERE)

#: Most bytes of the run's log and of one of its lines; set by the code that captures them.
log_limits: ContextVar[tuple[int, int]] = ContextVar("dispatcher_log_limits", default=(10 * 2**20, 16384))


class Context:
    """The run in which the calling code is running. Its one instance is :data:`context`."""

    logger = logging.getLogger("dispatcher.flow")  #: its lines go to the run's log; outside a run it is a plain logger

    @property
    def run_id(self) -> str | None:
        """The run's id; None outside a run, and if an environment executes a flow directly."""
        return _frame.get().run_id

    @property
    def attempt(self) -> int | None:
        """The attempt's number, from 1; None outside a run."""
        return _frame.get().attempt

    @property
    def flow(self) -> str | None:
        """The flow's name; None outside a run."""
        return _frame.get().flow

    @property
    def labels(self) -> tuple[str, ...]:
        """The environment's labels."""
        return _frame.get().labels

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The run's parameters as submitted, by name, without defaults."""
        return _frame.get().parameters

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return _frame.get().tags

    @property
    def state(self) -> State | None:
        """In ``on_exit``: the state in which the attempt ends. None before."""
        return _frame.get().state

    @property
    def exception(self) -> BaseException | None:
        """In ``on_exit``: the exception of the flow or of ``on_start``. None before, and after a success."""
        return _frame.get().exception

    def __repr__(self) -> str:
        frame = _frame.get()
        return "<context outside a run>" if frame is _NOWHERE else f"<context of run {frame.run_id}, flow {frame.flow}>"

    def __reduce__(self) -> str:
        return "context"  # a flow that refers to it gets the instance of the process that opens it


#: The only instance.
context = Context()


@contextmanager
def entered(
    *,
    run_id: str | None,
    attempt: int | None,
    flow: str | None,
    labels: Iterable[str] = (),
    parameters: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
) -> Iterator[None]:
    """Enter a run; leaving restores the context from before."""
    frame = Frame(run_id, attempt, flow, tuple(labels), MappingProxyType(dict(parameters or {})), tuple(tags))
    with inside(frame):
        yield


@contextmanager
def inside(frame: Frame) -> Iterator[None]:
    """Enter the run of ``frame``: a task, wherever it runs, is inside its flow's run."""
    token = _frame.set(frame)
    try:
        yield
    finally:
        _frame.reset(token)


def around() -> Frame | None:
    """Return the run in which the caller is running; None outside one."""
    frame = _frame.get()
    return None if frame is _NOWHERE else frame


def ended(state: State, exception: BaseException | None = None) -> None:
    """Set how the flow ended, for ``on_exit``. Call inside :func:`entered`, from the same function."""
    frame = _frame.get()
    if frame is not _NOWHERE:
        frame.state, frame.exception = state, exception


@contextmanager
def users_code() -> Iterator[None]:
    """Mark code of the user: an exception that leaves it is the user's, even if its class is ours."""
    try:
        yield
    except BaseException:
        frame = _frame.get()
        if frame is not _NOWHERE:
            frame.raised = True
        raise


def users_code_raised() -> bool:
    """Return True if the user's code has raised. Call inside :func:`entered`, from the same function."""
    return _frame.get().raised
