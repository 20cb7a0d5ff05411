"""Waits for many runs at once, after :mod:`concurrent.futures`: ``wait`` and ``as_completed``."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar

from dispatcher.client.timeouts import checked_timeout
from dispatcher.errors import InvalidInput, NotFinished
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.durations import Seconds
from dispatcher.support.escaping import shown
from dispatcher.support.mailbox import Mailbox

if TYPE_CHECKING:
    from dispatcher.client.run import Run

R = TypeVar("R")

FIRST_COMPLETED = futures.FIRST_COMPLETED
FIRST_EXCEPTION = futures.FIRST_EXCEPTION
ALL_COMPLETED = futures.ALL_COMPLETED
_RETURN_WHEN = (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION)


class RunSet(set["Run[R]"]):
    """A set of runs."""

    if not TYPE_CHECKING:  # which knows better what a set has

        def __getattr__(self, name: str) -> NoReturn:
            remedy = f"; write [run.{name} for run in client.wait(runs).done]" if _is_of_a_run(name) else ""
            raise AttributeError(f"a set of runs has no {name!r}{remedy}")


class DoneAndNotDone(NamedTuple, Generic[R]):
    """The result of :func:`wait`: runs that have ended, and those that have not."""

    done: RunSet[R]
    not_done: RunSet[R]


class _MultiWait:
    """A wait for runs of any clients, each with the future of its terminal record."""

    def __init__(self, runs: Sequence[Run[Any]]) -> None:
        self._stack = ExitStack()
        self._done: Mailbox[futures.Future[Record]] = Mailbox()
        self.left: dict[futures.Future[Record], Run[Any]] = {}
        self._runs = runs

    def __enter__(self) -> _MultiWait:
        groups: dict[int, list[Run[Any]]] = {}
        for run in self._runs:
            groups.setdefault(id(run.session.watcher), []).append(run)
        try:
            for group in groups.values():
                watcher, records = group[0].session.watcher, [run.last_record for run in group]
                waiting = self._stack.enter_context(watcher.waiting([run.id for run in group], records))
                self.left.update(zip(waiting.futures, group, strict=True))
                for future in waiting.futures:  # futures.wait() would check all of them each time that one is done
                    future.add_done_callback(self._done.put)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def take(self, timeout: float | None) -> list[Run[Any]]:
        """Return the runs that have ended, as soon as there is one, or none after ``timeout`` seconds.

        They hold their last record then.
        """
        done: list[futures.Future[Record]] = []
        with suppress(queue.Empty):
            done.append(self._done.get(timeout=timeout))
            while True:
                done.append(self._done.get(0))
        ended = []
        for future in done:
            run = self.left.pop(future)
            if future.exception() is None:
                run.remember(future.result())
            ended.append(run)
        return sorted(ended, key=lambda run: (run.ended_at or 0.0, run.id))


def _is_of_a_run(name: str) -> bool:
    from dispatcher.client.run import Run

    return not name.startswith("_") and hasattr(Run, name)


def wait(
    runs: Iterable[Run[R]],
    *,
    return_when: str = ALL_COMPLETED,
    timeout: Seconds | None = None,
    progress: bool = False,
) -> DoneAndNotDone[R]:
    """Wait for runs to end.

    Args:
        runs: of any clients. A run that doesn't exist any more counts as ended.
        return_when: ``ALL_COMPLETED``, ``FIRST_COMPLETED``, or ``FIRST_EXCEPTION`` (a run didn't succeed).
        timeout: seconds, or a timedelta; None waits for ever.
        progress: show a progress bar on stderr.

    Returns:
        Two sets of runs, ``done`` and ``not_done``. A timeout raises nothing: see ``not_done``.

    Raises:
        InvalidInput: ``return_when`` isn't one of these, ``timeout`` is no time, or something isn't a run.
        ServerUnavailable: the server can't be reached when the wait begins. Later outages raise nothing.
    """
    if return_when not in _RETURN_WHEN:
        raise InvalidInput(f"return_when: must be one of {', '.join(_RETURN_WHEN)}, got {shown(return_when)}")
    seconds = checked_timeout(timeout)
    distinct = _distinct(runs)
    end = None if seconds is None else time.monotonic() + seconds
    done: RunSet[R] = RunSet()
    with _MultiWait(distinct) as pending, _ProgressBar(len(distinct)) if progress else nullcontext() as bar:
        while pending.left:
            ended = pending.take(None if end is None else max(0.0, end - time.monotonic()))
            done.update(ended)
            if bar is not None:
                bar.count(ended)
            late = end is not None and time.monotonic() >= end and not ended
            if late or (ended and _is_enough(return_when, ended)):
                break
        return DoneAndNotDone(done, RunSet(pending.left.values()))


def as_completed(runs: Iterable[Run[R]], timeout: Seconds | None = None) -> Iterator[Run[R]]:
    """Yield the runs, each when it ends.

    Args:
        runs: of any clients. A run that doesn't exist any more counts as ended.
        timeout: seconds, or a timedelta, for all of them together; None waits for ever.

    Raises:
        NotFinished: some have not ended within ``timeout`` seconds (also a TimeoutError).
        InvalidInput: ``timeout`` is no time, or something isn't a run. Raised by the call itself.
        ServerUnavailable: the server can't be reached when the wait begins. Later outages raise nothing.
    """
    return _as_completed(_distinct(runs), checked_timeout(timeout))


def _as_completed(distinct: list[Run[R]], timeout: float | None) -> Iterator[Run[R]]:
    end = None if timeout is None else time.monotonic() + timeout
    with _MultiWait(distinct) as pending:
        while pending.left:
            ended = pending.take(None if end is None else max(0.0, end - time.monotonic()))
            yield from ended
            if not ended:
                from dispatcher.client.unfinished import standing_of

                first = standing_of(next(iter(pending.left.values())))
                count = f"{len(pending.left)} of {len(distinct)} runs have not ended within {timeout:g} s"
                raise NotFinished(f"{count}; {first}" if first else count)


def _distinct(runs: Iterable[Run[R]]) -> list[Run[R]]:
    from dispatcher.client.run import Run

    distinct = list(dict.fromkeys(runs))
    for run in distinct:
        if not isinstance(run, Run):
            raise InvalidInput(f"not a run: {shown(run)}; give what submit, map or get returned")
    return distinct


def _is_enough(return_when: str, ended: Sequence[Run[Any]]) -> bool:
    if return_when == FIRST_EXCEPTION:
        return any(run.known_state is not State.SUCCEEDED for run in ended)
    return return_when == FIRST_COMPLETED


class _ProgressBar:
    """A progress bar on stderr: how many runs have ended, by state."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._progress.add_task("", total=total)
        self._counts: dict[str, int] = {}

    def __enter__(self) -> _ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def count(self, runs: Sequence[Run[Any]]) -> None:
        """Count these as ended."""
        for run in runs:
            state = str(run.known_state or "gone")
            self._counts[state] = self._counts.get(state, 0) + 1
        description = ", ".join(f"{count} {state}" for state, count in sorted(self._counts.items()))
        self._progress.update(self._task, advance=len(runs), description=description)
