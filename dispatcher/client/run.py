"""A run, as its submitter or anybody else sees it. Made by :class:`~dispatcher.client.client.Dispatcher` alone."""

from __future__ import annotations

import html
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dispatcher.errors import DispatcherWarning, InvalidInput, NotFinished, RunError
from dispatcher.runs.change import Change
from dispatcher.runs.events import Event, Kind
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.escaping import escaped
from dispatcher.support.ids import check_run_id, made_at

if TYPE_CHECKING:
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.session import Link
    from dispatcher.inspection.timeline import Timeline
    from dispatcher.records.base import Line

R = TypeVar("R")

#: Seconds of waiting after which a client says that no live worker serves the run; a starting worker gets longer.
PATIENCE = 5.0
PATIENCE_AT_START = 15.0


class Run(Generic[R]):
    """One execute request. Equal by id; pickles as its id, so that URL and keys are its reader's.

    Attributes:
        id: 26 characters that sort by the time of submit.

    Raises:
        UnknownRun: it is made, or unpickled, with what no run is called.
    """

    id: str

    def __init__(self, run_id: str, client: Dispatcher | None = None, record: Record | None = None) -> None:
        self.id = check_run_id(run_id)
        self._client = client
        self._record = record
        self._warned = False

    @property
    def state(self) -> State:
        """The state, read now.

        Raises:
            UnknownRun: its retention is over.
            ServerUnavailable: the server can't be reached.
        """
        return self._read().state

    @property
    def known_state(self) -> State | None:
        """The state as last read here, without asking; None if it never was."""
        return None if self._record is None else self._record.state

    @property
    def ended_at(self) -> float | None:
        """When it ended, in seconds since the epoch by the server's clock, as last read here; None if not known."""
        return None if self._record is None else self._record.ended_at

    def result(self, timeout: float | None = None, *, plain: bool | None = None) -> R:
        """Wait for the end, and give what the flow returned.

        What JSON doesn't give back unchanged, and the flow's exception, is a pickle. Its seal, which is checked first,
        shows that a runner of this run made it; opening it runs whatever the flow put into it. So this trusts the flow,
        and the container and image that it ran in, with this process.

        Args:
            timeout: seconds to wait; None waits for ever.
            plain: True opens no pickle: another result than JSON is an InvalidInput, and a FlowFailed has no
                ``__cause__``. False opens it. None: as ``DISPATCHER__RESULTS__PLAIN`` says, which is False unless set;
                so do ``await run`` and all else that gives results.

        Raises:
            FlowFailed: the flow, or ``on_start``, raised; ``__cause__`` is its own exception where that opens here.
            RunCrashed: the infrastructure died; ``cause``, ``reason``, ``exit_code``, ``log_tail``.
            RunTimedOut: a deadline passed.
            RunCancelled: somebody cancelled it.
            NotFinished: only the wait ended (also a TimeoutError); the run goes on.
            SealBroken: the result isn't what the runner sealed.
            InvalidInput: the result can't be opened in this process (``__cause__`` is what its own code raised, if it
                did), or isn't JSON, and ``plain`` refuses that.
            UnknownRun: its retention is over.
        """
        from dispatcher.client.results import result_of

        return result_of(self.link, self._ended(timeout), plain=plain)  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None, *, plain: bool | None = None) -> RunError | None:
        """Wait for the end, and give the error that :meth:`result` would raise; None after a success. The arguments are
        those of :meth:`result`.

        Raises:
            NotFinished: only the wait ended.
            UnknownRun: its retention is over.
        """
        from dispatcher.client.results import error_of

        record = self._ended(timeout)
        return None if record.state is State.SUCCEEDED else error_of(self.link, record, plain=plain)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, however it comes; whether it came within so many seconds."""
        try:
            self._ended(timeout)
        except NotFinished:
            return False
        return True

    def done(self) -> bool:
        """Return True if it has ended, read now."""
        return self._read().terminal

    def cancel(self) -> bool:
        """Cancel: at once where nothing runs, else the flow is ended within ``stop_grace``, its ``on_exit`` called.

        While ``on_exit`` is called, the flow has ended and its outcome is stored: nothing is changed, ``on_exit`` goes
        on, and :meth:`explain` says how the flow ended. Only where a retry would follow, the cancel takes that.

        Returns:
            Whether this call had an effect; False if it is being cancelled already, or if its flow has ended.

        Raises:
            InvalidInput: it has ended already; names the state.
            UnknownRun: there is no such run.
        """
        step = Cancel()
        self.note(self.link.records.runs.update(self.id, step))
        return step.effect

    def events(self, follow: bool = False) -> Iterator[Event]:
        """Yield the events, in order; with ``follow`` until the run has ended.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.client.tail import events_of

        if follow:
            self.link.mind()
        return events_of(self.link.records, self.id, follow=follow)

    def logs(self, follow: bool = False) -> Iterator[Line]:
        """Yield the lines that the flow printed and logged, in order; with ``follow`` until the run has ended.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.client.tail import lines_of

        if follow:
            self.link.mind()
        return lines_of(self.link.records, self.id, follow=follow)

    def explain(self) -> list[str]:
        """Why it isn't running, or how it ended: plain sentences, the most important first.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.inspection.queues import explained

        return explained(self.link.records, self.id)

    def timeline(self) -> Timeline:
        """The phases so far, with their start and duration; those of its infrastructure too, as far as it tells."""
        from dispatcher.client.tail import first_lines
        from dispatcher.inspection.timeline import timeline

        events, times = list(self.events()), self.link.records.runs.get(self.id)[0].times
        return timeline(self.id, events, times, first_lines(self.link.records, self.id) if times else None)

    def on_start(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` here when an attempt starts, at once if it has.

        All callbacks of a client are called on one thread, one after the other; what they raise is logged.
        """
        self._hook(Kind.STARTED, callback)

    def on_exit(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` here when an attempt has ended, at once if it has; as :meth:`on_start`.

        ``event.final`` says whether the run ended with it; ``event.state`` and ``event.data`` how.
        """
        self._hook(Kind.EXITED, callback)

    @property
    def link(self) -> Link:
        """The client's connections; for the modules of this package."""
        if self._client is None:
            from dispatcher.client.client import default

            self._client = default()
        return self._client.link

    @property
    def known(self) -> Record | None:
        """The record as last read; for the modules of this package."""
        return self._record

    def note(self, record: Record) -> None:
        """Remember the record as last read; for the modules of this package."""
        self._record = record

    def _hook(self, kind: Kind, callback: Callable[[Event], object]) -> None:
        if not callable(callback):
            raise InvalidInput(f"the callback must be a function of one event, got {callback!r}")
        self.link.watcher.hook(self.id, kind, callback)

    def _read(self) -> Record:
        if self._record is None or not self._record.terminal:
            self._record = self.link.records.runs.get(self.id)[0]
        return self._record

    def _ended(self, timeout: float | None) -> Record:
        """The terminal record, waited for."""
        if self._record is not None and self._record.terminal:
            return self._record
        with self.link.watcher.waiting([self.id], [self._record]) as waiting:
            future = waiting.futures[0]
            patience = PATIENCE if self.link.laptop is None else PATIENCE_AT_START
            try:
                if self._warned or (timeout is not None and timeout <= patience):
                    self.note(future.result(timeout))
                else:
                    self.note(self._patiently(future, timeout, patience))
            except TimeoutError:
                if future.done():
                    raise
                raise self._not_finished(timeout or 0.0) from None
        assert self._record is not None
        return self._record

    def _patiently(self, future: Future[Record], timeout: float | None, patience: float) -> Record:
        """Wait, and say once if nobody is there to run it."""
        begun = time.monotonic()
        try:
            return future.result(patience)
        except TimeoutError:
            if future.done():
                raise
        self._warn()
        return future.result(None if timeout is None else max(0.0, timeout - (time.monotonic() - begun)))

    def _warn(self) -> None:
        self._warned = True
        record = self._read()
        if record.state is State.QUEUED and (missing := self.link.missing(record.spec.route)):
            warnings.warn(f"run {self.id} waits: {missing}", DispatcherWarning, stacklevel=5)

    def _not_finished(self, timeout: float) -> NotFinished:
        from dispatcher.inspection.deadlocks import stuck

        record, why = self._read(), ""
        if record.state is State.QUEUED:
            why = self.link.missing(record.spec.route) or stuck(self.link.records, [self.id])
        return NotFinished(
            f"run {self.id} of flow {record.spec.flow!r} has not ended within {timeout:g} s: it is {record.state}"
            f"{'. ' + why if why else ''}"
        )

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        """The result, waited for without holding a thread; a cancelled await leaves the run as it is."""
        import asyncio

        if self._record is None or not self._record.terminal:
            link = await asyncio.to_thread(lambda: self.link)
            waiting = link.watcher.waiting([self.id], [self._record])
            try:
                await asyncio.to_thread(waiting.__enter__)
                self.note(await asyncio.wrap_future(waiting.futures[0]))
            finally:
                await asyncio.shield(asyncio.to_thread(waiting.leave))
        return await asyncio.to_thread(self.result)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(("run", self.id))

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.id,)

    def __repr__(self) -> str:
        told = self._told()
        if "flow" in told:
            told["flow"] = f"of flow {told['flow']!r}"
        return f"<Run {self.id}{' ' * bool(told)}{', '.join(told.values())}>"

    def _repr_html_(self) -> str:
        told = {"run": self.id, **self._told()}
        heads = "".join(f"<th>{name}</th>" for name in told)
        cells = "".join(f"<td>{html.escape(escaped(part))}</td>" for part in told.values())
        return f"<table><tr>{heads}</tr><tr>{cells}</tr></table>"

    def _told(self) -> dict[str, str]:
        """Flow, state and age as last known: nothing is asked for."""
        told = {}
        if self._record is not None:
            known = self._record.state
            told["flow"] = self._record.spec.flow[:80]
            told["state"] = str(known) if self._record.terminal else f"{known} (last known)"
        at = made_at(self.id)
        return told if at is None else {**told, "age": f"{_age(time.time() - at)} old"}


class Cancel:
    """The step of a cancel, which is taken again where the record has changed since it was read, or no reply came.

    Attributes:
        effect: whether the run is cancelled by it, once it was taken for the last time.
    """

    def __init__(self) -> None:
        self.effect = self._asked = False

    def __call__(self, record: Record, now: float) -> Change | None:
        from dispatcher.runs.transitions import request_cancel

        change = request_cancel(record, now)
        self.effect = change is not None or (self._asked and record.state in {State.CANCELLING, State.CANCELLED})
        self._asked = self._asked or change is not None
        if record.terminal and not self.effect:
            raise InvalidInput(f"run {record.id} can't be cancelled: it is {record.state} already")
        return change


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
