"""A task on a Dask worker: it is called with the run's context, its lines are sent to the flow, and it can be stopped.

Submitted by :mod:`dispatcher.executors.dask_session` with a :class:`TaskOrigin`. Dask workers need this package, but
they get no credentials: lines go to the scheduler as events of the flow's client, in the stream in which the task's
result follows.
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
from dispatcher.executors import dask_code, task_arguments
from dispatcher.executors.task_logs import TaskLine, TaskLog, capture
from dispatcher.logs.stdout import CapturedStream
from dispatcher.runs.context import Frame, inside
from dispatcher.support import signatures
from dispatcher.support.tracebacks import message_of

_WATCH_INTERVAL = 0.1  # seconds between two checks of the running tasks
_STOP_RETRY = 1.0  # seconds after which a task that goes on is asked to stop again
_IDLE_TIMEOUT = 10.0  # seconds without a task after which the watching thread ends
_DROPPED_STATES = frozenset({"cancelled", "resumed", "released", "forgotten"})  # of a task
_CLOSED_STATES = frozenset({"closing", "closed", "failed"})  # of a worker

_MAX_ENDED_SESSIONS = 1000

_ended_sessions: dict[str, None] = {}  # the latest ones
local_sessions: set[str] = set()  # sessions of flows in this process, whose tasks' lines are captured here anyway


@dataclass(frozen=True)
class TaskOrigin:
    """The run that a task belongs to. Packed once, and sent with each task of a flow.

    Attributes:
        session: name of the flow's :class:`~dispatcher.executors.dask_session.DaskSession`.
        topic: the topic of events in which it receives lines.
        levels: the flow's log levels, by logger.
        max_bytes: most bytes of all lines of a run on one worker.
        max_line: most bytes of one line.
    """

    session: str
    topic: str
    levels: Mapping[str, int]
    max_bytes: int
    max_line: int
    run_id: str | None = None
    attempt: int | None = None
    flow: str | None = None
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    inside: bool = False
    has_bundles: bool = False  #: whether the session has opened code bundles

    def frame(self, parameters: bytes) -> Frame | None:
        """Return the context of the run; None if the task belongs to none."""
        if not self.inside:
            return None
        return Frame(self.run_id, self.attempt, self.flow, self.labels, _Parameters(parameters), self.tags)


@dataclass(frozen=True)
class TaskCall:
    """One call of a task: origin, code, arguments and constants, each packed by ``pack_value``."""

    origin: bytes
    code: bytes
    arguments: bytes
    constants: bytes


def run(call: TaskCall, arguments: Sequence[Any], constants: Sequence[Any], parameters: bytes) -> Any:
    """Run a task. Called by Dask.

    Args:
        call: the call.
        arguments: results of the futures in its arguments.
        constants: results of the futures in its constants.
        parameters: the run's parameters, packed.

    Raises:
        Exception: of the task.
        RuntimeError: the task raised another BaseException, such as SystemExit. Dask takes it for the end of its own
            process or event loop: its workers would end one after the other, or the flow would wait for ever.
    """
    try:
        return _run(call, arguments, constants, parameters)
    except Exception:
        raise
    except BaseException as error:
        kind = type(error).__qualname__
        raise RuntimeError(f"the task raised {kind}({message_of(error)}), which is no Exception") from error


def _run(call: TaskCall, arguments: Sequence[Any], constants: Sequence[Any], parameters: bytes) -> Any:
    origin = _unpack_origin(call.origin)
    frame = origin.frame(parameters)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask_code.held(origin.session, origin.has_bundles))
        if frame is not None:
            stack.enter_context(inside(frame))
        try:
            worker = distributed.get_worker()
        except ValueError:  # not in a thread of the worker, but in another executor of Dask's
            return _call(call, origin, arguments, constants)
        if origin.session not in local_sessions:
            sender = _line_sender(worker, origin)
            log = TaskLog(sender, origin.session, origin.max_bytes, origin.max_line, origin.levels)
            stack.enter_context(capture(log))
        else:
            stack.callback(_end_partial_lines)
        task = RunningTask(origin.session, worker)
        return task.guarded(lambda: _call(call, origin, arguments, constants, task))


async def stop(session: str, timeout: float) -> list[str]:
    """Ask the session's tasks to stop, and wait for them up to ``timeout`` seconds. Runs in a worker's loop.

    Returns:
        The names of the tasks that go on.
    """
    _ended_sessions[session] = None
    while len(_ended_sessions) > _MAX_ENDED_SESSIONS:
        del _ended_sessions[next(iter(_ended_sessions))]
    end = time.monotonic() + timeout
    while tasks := [task for task in list(_running) if task.session == session]:
        for task in tasks:
            task.request_stop()
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.02)
    return sorted(task.key.rpartition("-")[0] for task in tasks)


def send_end_mark(session: str, topic: str, dask_worker: Any) -> None:
    """Send a mark that follows all lines sent so far. Runs in a worker's loop."""
    dask_worker.log_event(topic, {"dispatcher": session, "end": True})


def runs_here(thread: int | None) -> bool:
    """Return True if a thread of this process runs a task."""
    return any(task.thread == thread for task in list(_running))


def _end_partial_lines() -> None:
    """End the partial lines of a task in the flow's own process, so that the next task here doesn't continue them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, CapturedStream):
            stream.end_line_of_this_thread()


def _call(
    call: TaskCall,
    origin: TaskOrigin,
    arguments: Sequence[Any],
    constants: Sequence[Any],
    task: RunningTask | None = None,
) -> Any:
    code = _unpack_code(call.code, origin.session if origin.has_bundles else "")
    args = task_arguments.unpack_value(call.arguments, arguments)
    kwargs = task_arguments.unpack_value(call.constants, constants)
    function = getattr(code, "fn", code)
    if task is not None and inspect.iscoroutinefunction(function):
        function = task.stoppable(function)
    return signatures.call(function, *args, **kwargs)


@functools.lru_cache(maxsize=64)
def _unpack_code(data: bytes, _session: str) -> Any:
    """Return a task's code, unpacked once per worker, so that the state of its module lasts between calls.

    Code that names modules of bundles is unpacked once per session: to another one, the same names may mean others.
    """
    return task_arguments.unpack_value(data, ())


@functools.lru_cache(maxsize=64)
def _unpack_origin(data: bytes) -> TaskOrigin:
    origin: TaskOrigin = task_arguments.unpack_value(data, ())
    return origin


class _Parameters(Mapping[str, Any]):
    """The run's parameters, unpacked on first use. Each task has its own objects."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @functools.cached_property
    def _values(self) -> Mapping[str, Any]:
        if not self._data:
            raise InvalidInput("context.parameters: the run's parameters can't be sent to Dask workers")
        values: Mapping[str, Any] = task_arguments.unpack_value(self._data, ())
        return values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self._values))


def _line_sender(worker: Any, origin: TaskOrigin) -> Callable[[TaskLine], None]:
    """Return a function that sends lines from any thread. Lines added while the worker's loop is busy go together."""
    lines: list[TaskLine] = []
    lock = threading.RLock()  # a destructor may print while its thread sends
    scheduled = False

    def flush() -> None:
        nonlocal scheduled
        with lock:
            batch, lines[:], scheduled = list(lines), [], False
        with contextlib.suppress(Exception):  # the worker is closing, and can't send any more
            worker.log_event(origin.topic, {"dispatcher": origin.session, "name": str(worker.name), "lines": batch})

    def send(line: TaskLine) -> None:
        nonlocal scheduled
        with lock:
            lines.append(line)
            if scheduled:
                return
            scheduled = True
        with contextlib.suppress(RuntimeError):  # the worker's loop is closed
            worker.loop.add_callback(flush)

    return send


class RunningTask:
    """A task that runs in this thread and can be asked to stop."""

    def __init__(self, session: str, worker: Any) -> None:
        self.session = session
        self.key = str(worker.get_current_task())
        self.thread = threading.get_ident()
        self._worker = worker
        self._lock = threading.Lock()
        self._interruptible = False
        self._stop_requested = 0.0  # time of the last request; 0: none
        self._cancel: Callable[[], Any] | None = None

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Run ``call`` so that :meth:`request_stop` can interrupt it, but nothing that comes after it."""
        try:
            try:
                self._interruptible = True
                _task_watcher.begin(self)
                if self.session in _ended_sessions:  # the session ended after Dask had assigned the task to this thread
                    raise CancelInterrupt
                return call()
            finally:
                self._settle()
        except CancelInterrupt:  # it may have been raised in _settle
            self._settle()
            raise
        finally:
            _task_watcher.end(self)

    def stoppable(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a coroutine function that can also be stopped while it waits in its event loop."""

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
        """Return True if Dask has dropped the task: it was cancelled, or its client has gone."""
        if self._worker.status.name in _CLOSED_STATES:
            return True
        state = self._worker.state.tasks.get(self.key)
        return state is None or state.state in _DROPPED_STATES

    def request_stop(self) -> None:
        """Raise CancelInterrupt in the task's Python code, at most once a second."""
        with self._lock:
            now = time.monotonic()
            if not self._interruptible or (self._stop_requested and now < self._stop_requested + _STOP_RETRY):
                return
            first, self._stop_requested = not self._stop_requested, now
            if first and (cancel := self._cancel) is not None:
                with contextlib.suppress(RuntimeError):  # the loop has just ended
                    cancel()
                return
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(CancelInterrupt))

    def _settle(self) -> None:
        """Make sure that nothing is raised in this thread from now on."""
        while True:
            try:
                with self._lock:
                    self._interruptible = False
                    if self._stop_requested:  # withdraw an exception that Python hasn't raised yet
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)
                return
            except CancelInterrupt:
                continue


_running: set[RunningTask] = set()


class _TaskWatcher:
    """A thread that asks tasks to stop once Dask has dropped them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_tasks = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, task: RunningTask) -> None:
        with self._lock:
            _running.add(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="dispatcher-tasks", daemon=True)
                self._thread.start()
        if not self._has_tasks.is_set():
            self._has_tasks.set()

    def end(self, task: RunningTask) -> None:
        with self._lock:
            _running.discard(task)

    def _watch(self) -> None:
        while True:
            self._has_tasks.clear()
            if not _running and not self._has_tasks.wait(_IDLE_TIMEOUT):
                with self._lock:
                    if not _running:
                        self._thread = None
                        return
            for task in list(_running):
                with contextlib.suppress(Exception):  # an error in Dask must not end the thread
                    if task.is_unwanted():
                        task.request_stop()
            time.sleep(_WATCH_INTERVAL)


_task_watcher = _TaskWatcher()
