"""A task on a Dask worker: the call, with the run's context, its lines, and an ear for its end.

Given to Dask by :mod:`dispatcher.executors.dask`, together with an :class:`Origin`. Workers need this package; they get
no credentials: lines go to the scheduler as events of the flow's client, in the stream in which the task's result
follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import distributed

from dispatcher.errors import CancelInterrupt, InvalidInput
from dispatcher.executors import task_arguments
from dispatcher.executors.task_logs import Said, TaskLines, said_by
from dispatcher.logs.stdout import CapturedStream
from dispatcher.runs.context import Frame, inside
from dispatcher.support import signatures

_LOOK = 0.1  # seconds between two looks at what Dask still wants
_AGAIN = 1.0  # seconds after which a task that goes on is asked once more
_IDLE = 10.0  # seconds without a task after which nobody looks any more
_GONE = frozenset({"cancelled", "resumed", "released", "forgotten"})
_CLOSED = frozenset({"closing", "closed", "failed"})

_SESSIONS = 1000  # that have ended, and are remembered

_ended: dict[str, None] = {}
here: set[str] = set()  # sessions of flows of this process: what their tasks print here is captured here


@dataclass(frozen=True)
class Origin:
    """The run that a task belongs to: sealed once, and sent with each task of a flow.

    ``session`` names the flow's executor, ``topic`` where it hears of lines; ``most`` and ``longest`` are bytes, of all
    lines of a run on one worker and of one.
    """

    session: str
    topic: str
    levels: Mapping[str, int]
    most: int
    longest: int
    run_id: str | None = None
    attempt: int | None = None
    flow: str | None = None
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    inside: bool = False

    def frame(self, parameters: bytes) -> Frame | None:
        """The run around the task; None outside one."""
        if not self.inside:
            return None
        return Frame(self.run_id, self.attempt, self.flow, self.labels, _Parameters(parameters), self.tags)


@dataclass(frozen=True)
class Call:
    """One call of a task: code, arguments and constants as :mod:`dispatcher.executors.task_arguments` packs them."""

    origin: bytes
    code: bytes
    arguments: bytes
    constants: bytes


def run(call: Call, arguments: Sequence[Any], constants: Sequence[Any], parameters: bytes) -> Any:
    """Run it. ``arguments`` and ``constants`` are results of the futures in them; ``parameters`` the run's, sealed."""
    origin = _origin(call.origin)
    frame = origin.frame(parameters)
    with contextlib.ExitStack() as stack:
        if frame is not None:
            stack.enter_context(inside(frame))
        try:
            worker = distributed.get_worker()
        except ValueError:  # not in a thread of the worker: an executor of its own
            return _called(call, arguments, constants, None)
        if origin.session not in here:
            sender = _sender(worker, origin)
            stack.enter_context(said_by(TaskLines(sender, origin.session, origin.most, origin.longest, origin.levels)))
        else:
            stack.callback(_end_lines)
        running = Running(origin.session, worker)
        return running.guarded(lambda: _called(call, arguments, constants, running))


async def stop(session: str, patience: float) -> list[str]:
    """In a worker's loop: ask the session's tasks to end, and wait for ``patience`` seconds; those that go on."""
    _ended[session] = None
    while len(_ended) > _SESSIONS:
        del _ended[next(iter(_ended))]
    end = time.monotonic() + patience
    while found := [one for one in list(_running) if one.session == session]:
        for one in found:
            one.ask()
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.02)
    return sorted(one.key.rpartition("-")[0] for one in found)


def farewell(session: str, topic: str, dask_worker: Any) -> None:
    """In a worker's loop: send a mark behind all lines that it has sent so far."""
    dask_worker.log_event(topic, {"dispatcher": session, "end": True})


def runs_here(thread: int | None) -> bool:
    """Return True if a thread of this process runs a task."""
    return any(one.thread == thread for one in list(_running))


def _end_lines() -> None:
    """A task in the flow's own process ends its partial lines, so that the next one here doesn't go on with them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, CapturedStream):
            stream.end_line_of_this_thread()


def _called(call: Call, arguments: Sequence[Any], constants: Sequence[Any], running: Running | None) -> Any:
    code = _code(call.code)
    args = task_arguments.opened(call.arguments, arguments)
    kwargs = task_arguments.opened(call.constants, constants)
    function = getattr(code, "fn", code)
    if running is not None and inspect.iscoroutinefunction(function):
        function = running.stoppable(function)
    return signatures.call(function, *args, **kwargs)


@functools.lru_cache(maxsize=64)
def _code(data: bytes) -> Any:
    """Code is opened once per worker, so that what its module remembers lasts; a value is new for each call."""
    return task_arguments.opened(data, ())


@functools.lru_cache(maxsize=64)
def _origin(data: bytes) -> Origin:
    found: Origin = task_arguments.opened(data, ())
    return found


class _Parameters(Mapping[str, Any]):
    """The run's parameters, opened where a task asks for them; each task has objects of its own."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @functools.cached_property
    def _opened(self) -> Mapping[str, Any]:
        if not self._data:
            raise InvalidInput("context.parameters: the run's parameters can't be sent to Dask workers")
        found: Mapping[str, Any] = task_arguments.opened(self._data, ())
        return found

    def __getitem__(self, name: str) -> Any:
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened)

    def __len__(self) -> int:
        return len(self._opened)

    def __repr__(self) -> str:
        return repr(dict(self._opened))


def _sender(worker: Any, origin: Origin) -> Callable[[Said], None]:
    """Sends lines from any thread: what comes while the worker's loop is busy goes together."""
    lines: list[Said] = []
    lock = threading.RLock()  # a destructor may print while its thread sends
    under_way = False

    def flush() -> None:
        nonlocal under_way
        with lock:
            found, lines[:], under_way = list(lines), [], False
        with contextlib.suppress(Exception):  # the worker is closing: nobody hears it any more
            worker.log_event(origin.topic, {"dispatcher": origin.session, "lines": found})

    def send(said: Said) -> None:
        nonlocal under_way
        with lock:
            lines.append(said)
            if under_way:
                return
            under_way = True
        with contextlib.suppress(RuntimeError):  # its loop is closed
            worker.loop.add_callback(flush)

    return send


class Running:
    """A task that runs in this thread, and how it is asked to stop."""

    def __init__(self, session: str, worker: Any) -> None:
        self.session = session
        self.key = str(worker.get_current_task())
        self.thread = threading.get_ident()
        self._worker = worker
        self._lock = threading.Lock()
        self._open = False
        self._asked = 0.0
        self._cancel: Callable[[], Any] | None = None

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Call it so that :meth:`ask` may end it, and nothing that comes after it."""
        try:
            try:
                self._open = True
                _watch.begin(self)
                if self.session in _ended:  # Dask gave it to this thread before it heard of the end
                    raise CancelInterrupt
                return call()
            finally:
                self._settle()
        except CancelInterrupt:  # it may have come while that was settled
            self._settle()
            raise
        finally:
            _watch.end(self)

    def stoppable(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A coroutine function that ends where it waits in its event loop, too."""

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            if task is not None:
                self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                return await function(*args, **kwargs)
            finally:
                self._cancel = None

        return awaited

    def is_unwanted(self) -> bool:
        """Return True if Dask has dropped the task meanwhile: it was cancelled, or who asked for it has gone."""
        if self._worker.status.name in _CLOSED:
            return True
        known = self._worker.state.tasks.get(self.key)
        return known is None or known.state in _GONE

    def ask(self) -> None:
        """Raise CancelInterrupt in its Python code; every second, as long as it goes on."""
        with self._lock:
            now = time.monotonic()
            if not self._open or (self._asked and now < self._asked + _AGAIN):
                return
            first, self._asked = not self._asked, now
            if first and (cancel := self._cancel) is not None:
                with contextlib.suppress(RuntimeError):  # its loop has just ended
                    cancel()
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(CancelInterrupt))

    def _settle(self) -> None:
        """From here on nothing is raised in this thread."""
        while True:
            try:
                with self._lock:
                    self._open = False
                    if self._asked:  # take back what Python hasn't raised yet
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)
                return
            except CancelInterrupt:
                continue


_running: set[Running] = set()


class _Watch:
    """A thread that asks tasks to stop which Dask doesn't want any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, one: Running) -> None:
        with self._lock:
            _running.add(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="dispatcher-tasks", daemon=True)
                self._thread.start()
        if not self._some.is_set():
            self._some.set()

    def end(self, one: Running) -> None:
        with self._lock:
            _running.discard(one)

    def _look(self) -> None:
        while True:
            self._some.clear()
            if not _running and not self._some.wait(_IDLE):
                with self._lock:
                    if not _running:
                        self._thread = None
                        return
            for one in list(_running):
                with contextlib.suppress(Exception):  # whatever Dask does there, tasks go on
                    if one.is_unwanted():
                        one.ask()
            time.sleep(_LOOK)


_watch = _Watch()
