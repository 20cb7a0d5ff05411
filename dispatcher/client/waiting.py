"""Waiting for many runs at once, in the manner of :mod:`concurrent.futures`."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dispatcher.errors import InvalidInput, NotFinished
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.mailbox import Mailbox

if TYPE_CHECKING:
    from dispatcher.client.run import Run

R = TypeVar("R")

FIRST_COMPLETED = futures.FIRST_COMPLETED
FIRST_EXCEPTION = futures.FIRST_EXCEPTION
ALL_COMPLETED = futures.ALL_COMPLETED
_RETURN_WHEN = (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION)


class DoneAndNotDone(NamedTuple):
    """The answer of :func:`wait`: runs that have ended, and those that have not."""

    done: set[Run[Any]]
    not_done: set[Run[Any]]


class _Wait:
    """Runs of any clients, each with the future of its terminal record."""

    def __init__(self, runs: Sequence[Run[Any]]) -> None:
        self._stack = ExitStack()
        self._done: Mailbox[futures.Future[Record]] = Mailbox()
        self.left: dict[futures.Future[Record], Run[Any]] = {}
        self._runs = runs

    def __enter__(self) -> _Wait:
        groups: dict[int, list[Run[Any]]] = {}
        for run in self._runs:
            groups.setdefault(id(run.link.watcher), []).append(run)
        try:
            for group in groups.values():
                watcher, known = group[0].link.watcher, [run.known for run in group]
                waiting = self._stack.enter_context(watcher.waiting([run.id for run in group], known))
                self.left.update(zip(waiting.futures, group, strict=True))
                for future in waiting.futures:  # futures.wait() would look at all of them each time that one ends
                    future.add_done_callback(self._done.put)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def take(self, timeout: float | None) -> list[Run[Any]]:
        """The runs that ended within so many seconds, as soon as one has; they know their last record."""
        done: list[futures.Future[Record]] = []
        with suppress(queue.Empty):
            done.append(self._done.get(timeout=timeout))
            while True:
                done.append(self._done.get(0))
        ended = []
        for future in done:
            run = self.left.pop(future)
            if future.exception() is None:
                run.note(future.result())
            ended.append(run)
        return sorted(ended, key=lambda run: (run.ended_at or 0.0, run.id))


def wait(
    runs: Iterable[Run[Any]],
    *,
    return_when: str = ALL_COMPLETED,
    timeout: float | None = None,
    progress: bool = False,
) -> DoneAndNotDone:
    """Wait for runs to end.

    Args:
        runs: of any clients; one that isn't there any more counts as ended.
        return_when: ``ALL_COMPLETED``, ``FIRST_COMPLETED``, or ``FIRST_EXCEPTION`` (one ended otherwise than well).
        timeout: seconds; None waits for ever.
        progress: show a bar on stderr.

    Raises:
        InvalidInput: ``return_when`` isn't one of these, or something isn't a run.
        ServerUnavailable: the server can't be reached as the wait begins; later outages are borne.
    """
    if return_when not in _RETURN_WHEN:
        raise InvalidInput(f"return_when: must be one of {', '.join(_RETURN_WHEN)}, got {return_when!r}")
    wanted = _runs(runs)
    end = None if timeout is None else time.monotonic() + timeout
    done: set[Run[Any]] = set()
    with _Wait(wanted) as waited, _bar(len(wanted)) if progress else nullcontext() as bar:
        while waited.left:
            ended = waited.take(None if end is None else max(0.0, end - time.monotonic()))
            done.update(ended)
            if bar is not None:
                bar.ended(ended)
            late = end is not None and time.monotonic() >= end and not ended
            if late or (ended and _enough(return_when, ended)):
                break
        return DoneAndNotDone(done, set(waited.left.values()))


def as_completed(runs: Iterable[Run[R]], timeout: float | None = None) -> Iterator[Run[R]]:
    """The runs, each as it ends.

    Args:
        runs: of any clients.
        timeout: seconds for all of them; None waits for ever.

    Raises:
        NotFinished: ``timeout`` seconds are over.
        InvalidInput: something isn't a run.
    """
    wanted = _runs(runs)
    end = None if timeout is None else time.monotonic() + timeout
    with _Wait(wanted) as waited:
        while waited.left:
            ended = waited.take(None if end is None else max(0.0, end - time.monotonic()))
            yield from ended
            if not ended:
                raise NotFinished(f"{len(waited.left)} of {len(wanted)} runs have not ended within {timeout:g} s")


def _runs(runs: Iterable[Run[Any]]) -> list[Run[Any]]:
    from dispatcher.client.run import Run

    found = list(dict.fromkeys(runs))
    for run in found:
        if not isinstance(run, Run):
            raise InvalidInput(f"not a run: {run!r}; give what submit, map or get returned")
    return found


def _enough(return_when: str, ended: Sequence[Run[Any]]) -> bool:
    if return_when == FIRST_EXCEPTION:
        return any(run.known_state is not State.SUCCEEDED for run in ended)
    return return_when == FIRST_COMPLETED


class _bar:  # noqa: N801 - a context manager
    """A progress bar on stderr: how many have ended, and how."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._progress.add_task("", total=total)
        self._counts: dict[str, int] = {}

    def __enter__(self) -> _bar:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def ended(self, runs: Sequence[Run[Any]]) -> None:
        """Count these."""
        for run in runs:
            state = str(run.known_state or "gone")
            self._counts[state] = self._counts.get(state, 0) + 1
        told = ", ".join(f"{count} {state}" for state, count in sorted(self._counts.items()))
        self._progress.update(self._task, advance=len(runs), description=told)
