"""A run, as its submitter or anybody else holds it. Made by :class:`~dispatcher.client.client.Dispatcher` alone."""

from __future__ import annotations

import html
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dispatcher.client.run_facts import RunFacts
from dispatcher.client.timeouts import checked_timeout
from dispatcher.errors import DispatcherWarning, InvalidInput, NotFinished, Refused, RunError
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.support.durations import Seconds
from dispatcher.support.escaping import escaped, shown
from dispatcher.support.ids import check_run_id, made_at

if TYPE_CHECKING:
    from dispatcher.client.session import ClientSession, LazySession
    from dispatcher.inspection.timeline import Timeline
    from dispatcher.records.logs import Line

R = TypeVar("R")

#: Seconds of waiting after which a client warns that no live worker serves the run; a starting worker gets longer.
WARN_AFTER = 5.0
WARN_AFTER_START = 15.0

#: Names for the modules of this package, which ``dir()`` doesn't show to users.
_INTERNAL = frozenset({"session", "last_record", "remember", "facts"})


class Run(RunFacts, Generic[R]):
    """One execute request. Runs with the same id are equal.

    A run pickles as its id. Where it is unpickled, it uses the URL and the signing keys of that process's settings.

    Attributes:
        id: 26 characters that sort by the time of submit.

    Raises:
        UnknownRun: the id has not the form of a run's id.
    """

    id: str

    def __init__(self, run_id: str, sessions: LazySession | None = None, record: Record | None = None) -> None:
        self.id = check_run_id(run_id)
        self._sessions = sessions
        self._record = record
        self._warned = False

    @property
    def state(self) -> State:
        """The current state, read from the server.

        Raises:
            UnknownRun: its retention is over.
            ServerUnavailable: the server can't be reached.
        """
        return self._read().state

    @property
    def known_state(self) -> State | None:
        """The state as last read by this object, without asking the server; None if it never was."""
        return None if self._record is None else self._record.state

    @property
    def ended_at(self) -> float | None:
        """When it ended, in seconds since the epoch by the server's clock, as last read by this object; else None."""
        return None if self._record is None else self._record.ended_at

    def result(self, timeout: Seconds | None = None, *, plain: bool | None = None) -> R:
        """Wait for the end, and return what the flow returned.

        What JSON doesn't give back unchanged is a pickle, and so is the flow's exception. Its seal, which is checked
        first, proves that a runner of this run made it. Opening it runs whatever the flow put into it. So this trusts
        the flow, and the container and image that it ran in, with this process.

        Args:
            timeout: seconds to wait, or a timedelta; None waits for ever.
            plain: True opens no pickle: a result that isn't JSON is an InvalidInput, and a FlowFailed has no
                ``__cause__``. False opens it. None: as ``DISPATCHER__RESULTS__PLAIN`` says, which is False unless set;
                ``await run`` and all else that gives results follow it too.

        Raises:
            FlowFailed: the flow, or ``on_start``, raised; ``__cause__`` is its own exception if that opens here.
            RunCrashed: the infrastructure died; ``cause``, ``reason``, ``exit_code``, ``log_tail``.
            RunTimedOut: a deadline passed.
            RunCancelled: somebody cancelled it.
            NotFinished: it has not ended within ``timeout`` seconds (also a TimeoutError); the run goes on.
            SealBroken: the result isn't what the runner sealed.
            InvalidInput: ``timeout`` is no time. Or the result can't be opened in this process (``__cause__`` is what
                its own code raised, if it did), or isn't JSON, and ``plain`` refuses that.
            UnknownRun: its retention is over.
            ServerUnavailable: the server can't be reached when the wait begins; later outages raise nothing.
        """
        from dispatcher.client.results import result_of

        return result_of(self.session, self._ended(timeout), plain=plain)  # type: ignore[no-any-return]

    def exception(self, timeout: Seconds | None = None, *, plain: bool | None = None) -> RunError | None:
        """Wait for the end, and return the error that :meth:`result` would raise; None after a success.

        Args:
            timeout: seconds to wait, or a timedelta; None waits for ever.
            plain: as of :meth:`result`.

        Raises:
            NotFinished: it has not ended within ``timeout`` seconds.
            UnknownRun: its retention is over.
        """
        from dispatcher.client.results import error_of

        record = self._ended(timeout)
        return None if record.state is State.SUCCEEDED else error_of(self.session, record, plain=plain)

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait for the end, however it comes.

        Args:
            timeout: seconds to wait, or a timedelta; None waits for ever.

        Returns:
            True if the run has ended, False after ``timeout`` seconds.
        """
        try:
            self._ended(timeout)
        except NotFinished:
            return False
        return True

    def done(self) -> bool:
        """Return True if it has ended, read from the server."""
        return self._read().terminal

    def cancel(self) -> bool:
        """Cancel: at once where nothing runs, else the flow is ended within ``stop_grace`` and its ``on_exit`` called.

        While ``on_exit`` is called, the flow has ended and its outcome is stored. A cancel then changes nothing:
        ``on_exit`` goes on, and :meth:`explain` says how the flow ended. It only prevents a retry that would follow.

        Returns:
            True if this call had an effect; False if the run is being cancelled already, or if its flow has ended.

        Raises:
            InvalidInput: the run has ended already, or is in a state of another release; names the state.
            UnknownRun: there is no such run.
        """
        from dispatcher.client.cancellation import Cancellation

        cancellation = Cancellation()
        try:
            self.remember(self.session.records.runs.update(self.id, cancellation))
        except Refused as error:
            raise InvalidInput(f"run {self.id} can't be cancelled: {error}") from error
        return cancellation.effective

    def events(self, follow: bool = False) -> Iterator[Event]:
        """Yield the events, in order; with ``follow`` until the run has ended.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.client.tail import events_of

        if follow:
            self.session.start_watchdog()
        return events_of(self.session.records, self.id, follow=follow)

    def logs(self, follow: bool = False) -> Iterator[Line]:
        """Yield the lines that the flow printed and logged, in order; with ``follow`` until the run has ended.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.client.tail import lines_of

        if follow:
            self.session.start_watchdog()
        return lines_of(self.session.records, self.id, follow=follow)

    def explain(self) -> list[str]:
        """Explain why it isn't running, or how it ended, in plain sentences, the most important first.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.inspection.queues import explained

        return explained(self.session.records, self.id)

    def timeline(self) -> Timeline:
        """Return the phases so far with start and duration, and those of its infrastructure as far as known.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.client.tail import first_lines
        from dispatcher.inspection.timeline import timeline

        records = self.session.records
        events, times = list(self.events()), records.runs.get(self.id)[0].times
        return timeline(self.id, events, times, first_lines(records, self.id) if times else None)

    def on_start(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` in this process when an attempt starts; at once if one has.

        All callbacks of a client are called on one thread, one after the other. Their exceptions are logged.
        """
        self._hook(EventKind.STARTED, callback)

    def on_exit(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` in this process when an attempt has ended; at once if one has. See :meth:`on_start`.

        ``event.final`` is True if the run has ended with it; ``event.state`` and ``event.data`` tell how.
        """
        self._hook(EventKind.EXITED, callback)

    @property
    def session(self) -> ClientSession:
        """The client's session; for the modules of this package."""
        if self._sessions is None:
            from dispatcher.client.session import default_session

            self._sessions = default_session()
        return self._sessions.get()

    @property
    def last_record(self) -> Record | None:
        """The record as last read; for the modules of this package."""
        return self._record

    def remember(self, record: Record) -> None:
        """Keep the record as last read; for the modules of this package."""
        self._record = record

    def _hook(self, kind: EventKind, callback: Callable[[Event], object]) -> None:
        if not callable(callback):
            raise InvalidInput(f"the callback must be a function of one event, got {shown(callback)}")
        self.session.watcher.hook(self.id, kind, callback)

    def _read(self) -> Record:
        if self._record is None or not self._record.terminal:
            self._record = self.session.records.runs.get(self.id)[0]
        return self._record

    def _ended(self, timeout: Seconds | None) -> Record:
        """Return the terminal record, once there is one."""
        timeout = checked_timeout(timeout)
        if self._record is not None and self._record.terminal:
            return self._record
        with self.session.watcher.waiting([self.id], [self._record]) as waiting:
            future = waiting.futures[0]
            warn_after = WARN_AFTER if self.session.laptop is None else WARN_AFTER_START
            try:
                if self._warned or (timeout is not None and timeout <= warn_after):
                    self.remember(future.result(timeout))
                else:
                    self.remember(self._wait_with_warning(future, timeout, warn_after))
            except TimeoutError:
                if future.done():
                    raise
                raise self._not_finished(timeout or 0.0) from None
        assert self._record is not None
        return self._record

    def _wait_with_warning(self, future: Future[Record], timeout: float | None, warn_after: float) -> Record:
        """Wait; after ``warn_after`` seconds warn if no worker serves the run, and wait on."""
        begun = time.monotonic()
        try:
            return future.result(warn_after)
        except TimeoutError:
            if future.done():
                raise
        self._warn()
        return future.result(None if timeout is None else max(0.0, timeout - (time.monotonic() - begun)))

    def _warn(self) -> None:
        self._warned = True
        record = self._read()
        if record.state is State.QUEUED and (missing := self.session.missing_worker(record.spec.route)):
            warnings.warn(f"run {self.id} waits: {missing}", DispatcherWarning, stacklevel=5)

    def _not_finished(self, timeout: float) -> NotFinished:
        from dispatcher.client.unfinished import standing

        record = self._read()
        stands = standing(self.session, record)
        return NotFinished(f"run {self.id} of flow {record.spec.flow!r} has not ended within {timeout:g} s: {stands}")

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        """Return the result, waited for without holding a thread. A cancelled await leaves the run as it is."""
        import asyncio

        if self._record is None or not self._record.terminal:
            session = await asyncio.to_thread(lambda: self.session)
            waiting = session.watcher.waiting([self.id], [self._record])
            try:
                await asyncio.to_thread(waiting.__enter__)
                self.remember(await asyncio.wrap_future(waiting.futures[0]))
            finally:
                await asyncio.shield(asyncio.to_thread(waiting.leave))
        return await asyncio.to_thread(self.result)

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) - _INTERNAL)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(("run", self.id))

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.id,)

    def __repr__(self) -> str:
        facts = self.facts()
        del facts["run"]
        if "flow" in facts:
            facts["flow"] = f"of flow {facts['flow']!r}"
        return f"<Run {self.id}{' ' * bool(facts)}{', '.join(facts.values())}>"

    def _repr_html_(self) -> str:
        facts = self.facts()
        heads = "".join(f"<th>{name}</th>" for name in facts)
        cells = "".join(f"<td>{html.escape(escaped(text))}</td>" for text in facts.values())
        return f"<table><tr>{heads}</tr><tr>{cells}</tr></table>"

    def facts(self) -> dict[str, str]:
        """Return id, flow, state and age as last read, for the modules of this package. Asks nothing of the server."""
        facts = {"run": self.id}
        if self._record is not None:
            state = self._record.state
            facts["flow"] = self._record.spec.flow[:80]
            facts["state"] = str(state) if self._record.terminal else f"{state} (last known)"
        at = made_at(self.id)
        return facts if at is None else {**facts, "age": f"{_age(time.time() - at)} old"}


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
