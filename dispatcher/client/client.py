"""The client: submits flows, finds runs, waits for them. Held by users' programs, notebooks and the command line."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from dispatcher.client import filters, waiting
from dispatcher.client.run import Run
from dispatcher.client.runs import Runs
from dispatcher.client.session import ClientSession, LazySession
from dispatcher.errors import DispatcherWarning, InvalidInput, ServerUnavailable, UnknownRun
from dispatcher.flows.bound_flow import BoundFlow
from dispatcher.flows.flow import Flow
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from dispatcher.submission.calls import SubmitOptions, many_calls, single_call
from dispatcher.submission.new_record import new_record
from dispatcher.submission.request import RequestChecker, SubmitRequest, check_key
from dispatcher.submission.spec_builder import SpecBuilder
from dispatcher.submission.spec_template import SpecTemplate
from dispatcher.support.durations import Seconds
from dispatcher.support.escaping import shown
from dispatcher.support.ids import check_run_id, made_at
from dispatcher.support.urls import MEMORY, parse

if TYPE_CHECKING:
    from dispatcher.client.subscription import Subscription
    from dispatcher.environments.base import Environment
    from dispatcher.inspection.queues import QueueInfo
    from dispatcher.storage.base import Storage

P = ParamSpec("P")
R = TypeVar("R")

#: Runs created in one call.
_BATCH_SIZE = 500


class Dispatcher:
    """A client of one installation. Connects on first use; usable from any thread, and after a fork.

    As a context manager it closes its connections at the end. Runs go on.

    Args:
        url: a Redis or Valkey server (:mod:`dispatcher.support.urls`); else ``DISPATCHER__URL``, else the laptop
            server. ``memory://`` runs each flow in this process during its submit, with this process's modules.
        settings: all settings; else they are read from environment variables.

    Raises:
        InvalidSettings: a setting is wrong; names it.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        loaded = Settings.load(url=url) if settings is None else settings
        self.settings = loaded if url is None else loaded.but(url=url)
        if self.settings.url is not None and not self.settings.url.startswith(MEMORY):
            parse(self.settings.url)
        self._sessions = LazySession(self.settings)
        self._requests = RequestChecker(self.settings)
        self._specs: SpecBuilder | None = None

    @overload
    def submit(self, flow: BoundFlow[R], /, **options: Unpack[SubmitOptions]) -> Run[R]: ...
    @overload
    def submit(
        self, flow: Flow[P, R], parameters: Mapping[str, Any] | None = None, **options: Unpack[SubmitOptions]
    ) -> Run[R]: ...
    def submit(  # noqa: PLR0913 - the run options
        self,
        flow: Any,
        parameters: Mapping[str, Any] | None = None,
        *more: Any,
        environment: Environment | str | None = None,
        storage: Storage | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Seconds | None = None,
        start_within: Seconds | None = None,
        result_ttl: Seconds | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | None = None,
        **unknown: Any,
    ) -> Run[Any]:
        """Submit a run. Once this returns, the run is accepted and will end in exactly one terminal state.

        Args:
            flow: a function decorated with ``@flow``, or one with its arguments: ``flow.bind(…)``.
            parameters: the flow's parameters, by name; none beside ``bind``.
            more: nothing; an error shows how to give arguments by position.
            environment: where to run, or the name of an environment in ``dispatcher.toml``; else the flow's, else
                ``LocalEnvironment()``.
            storage: where the code is kept; else the flow's, else ``RedisStorage()``.
            name: the run's name, beside that of its flow.
            tags: words to search runs by.
            timeout: seconds, or a timedelta, that an attempt may run.
            start_within: seconds, or a timedelta, within which an attempt must have started.
            result_ttl: seconds, or a timedelta, for which the ended run is kept.
            retries: the number of further attempts, or a :class:`Retry`.
            idempotency_key: the same key with the same flow, environment, options and parameters gives the same run.
            unknown: nothing; an error names the option, or the way to give parameters, that was meant.

        Raises:
            InvalidFlow: not a flow, or one that can't be pickled.
            InvalidParameters: they don't fit the signature or its annotations, can't be pickled, or are too large.
            InvalidInput: an option is wrong, or the environment can't be used with this server.
            InvalidSettings: no server, or no signing key.
            IdempotencyConflict: the key was used for another request.
            ServerUnavailable: after 15 s at most; ``may_exist`` is True if the run may have been accepted.
        """
        options = Options.of(
            name=name,
            tags=tags,
            timeout=timeout,
            start_within=start_within,
            result_ttl=result_ttl,
            retries=retries,
        )
        key = check_key(idempotency_key)
        checked, bound = single_call(flow, parameters, more, unknown, typed=self.settings.defaults.check_types)
        request = self._requests.check(checked, environment, storage, options)
        return self._accept(request, [bound], [key])[0]

    @overload
    def map(self, flow: Iterable[BoundFlow[R]], /, **options: Unpack[SubmitOptions]) -> Runs[R]: ...
    @overload
    def map(
        self, flow: Flow[P, R], parameters: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> Runs[R]: ...
    def map(  # noqa: PLR0913 - the run options
        self,
        flow: Any,
        parameters: Iterable[Mapping[str, Any]] | None = None,
        *more: Any,
        environment: Environment | str | None = None,
        storage: Storage | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Seconds | None = None,
        start_within: Seconds | None = None,
        result_ttl: Seconds | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | None = None,
        **unknown: Any,
    ) -> Runs[Any]:
        """Submit many runs of one flow, in few round trips. All parameters are checked before any run is accepted.

        Args:
            flow: a function decorated with ``@flow``; or an iterable of such functions with their arguments,
                ``[flow.bind(…), …]``, which are all of one flow.
            parameters: one mapping of names to values per run; none beside ``bind``.
            more: nothing, as of :meth:`submit`.
            environment: as of :meth:`submit`; so are the options below.
            storage: as above.
            name: as above.
            tags: as above.
            timeout: as above.
            start_within: as above.
            result_ttl: as above.
            retries: as above.
            idempotency_key: each run's key is this one with the index of its item, ``key[0]``.
            unknown: nothing, as of :meth:`submit`.

        Returns:
            The runs, in the order of ``parameters``: a list that can wait for all of them.

        Raises:
            InvalidParameters: some don't fit the signature; names the item by its index.
            DispatcherError: as :meth:`submit`. A ServerUnavailable says how many runs were accepted.
        """
        options = Options.of(
            name=name,
            tags=tags,
            timeout=timeout,
            start_within=start_within,
            result_ttl=result_ttl,
            retries=retries,
        )
        key = check_key(idempotency_key)
        checked, bound = many_calls(flow, parameters, more, unknown, typed=self.settings.defaults.check_types)
        request = self._requests.check(checked, environment, storage, options)
        return Runs(self._accept(request, bound, [f"{key}[{index}]" if key else "" for index in range(len(bound))]))

    def get(self, run_id: str) -> Run[Any]:
        """Return the run with this id, whoever submitted it.

        Raises:
            InvalidInput: the id isn't a string.
            UnknownRun: there is no such run, or its retention is over.
            ServerUnavailable: the server can't be reached.
        """
        if not isinstance(run_id, str):
            raise InvalidInput(f"run id: must be a string, got {shown(run_id)}")
        try:
            record, _ = self.session.records.runs.get(check_run_id(run_id))
        except UnknownRun:
            raise UnknownRun(self._unknown(run_id)) from None
        return Run(run_id, self._sessions, record)

    def get_many(self, run_ids: Iterable[str]) -> list[Run[Any] | None]:
        """Return the runs with these ids, in this order, with None for each that doesn't exist; in few round trips."""
        ids = list(run_ids)
        pairs = zip(ids, self.session.records.runs.get_many(ids), strict=True)
        return [None if record is None else Run(run_id, self._sessions, record) for run_id, record in pairs]

    def runs(
        self,
        *,
        state: State | str | None = None,
        label: str | None = None,
        flow: Flow[..., Any] | str | None = None,
        tag: str | None = None,
        since: datetime | Seconds | None = None,
        limit: int | None = 100,
    ) -> Iterator[Run[Any]]:
        """Return an iterator over runs, newest first, read page by page.

        Args:
            state: only runs in this state.
            label: only runs whose environment has this label.
            flow: only runs of this flow, or of flows with this name.
            tag: only runs with this tag.
            since: only runs created since this time, or within the last seconds (a number or a timedelta).
            limit: the largest number of runs; None: all.

        Raises:
            InvalidInput: a filter has a wrong value.
        """
        runs = self.session.records.runs
        query = filters.make_query(state=state, label=label, flow=flow, tag=tag, since=since, now=runs.now)
        filters.check_limit(limit)
        return (Run(record.id, self._sessions, record) for record in runs.find(query, limit=limit))

    def cancel(self, run: Run[Any] | str) -> bool:
        """Cancel a run; see :meth:`Run.cancel`."""
        return self._run(run).cancel()

    def wait(
        self,
        runs: Iterable[Run[R]],
        *,
        return_when: str = waiting.ALL_COMPLETED,
        timeout: Seconds | None = None,
        progress: bool = False,
    ) -> waiting.DoneAndNotDone[R]:
        """Wait for runs to end; see :func:`dispatcher.client.waiting.wait`."""
        return waiting.wait(runs, return_when=return_when, timeout=timeout, progress=progress)

    def as_completed(self, runs: Iterable[Run[R]], timeout: Seconds | None = None) -> Iterator[Run[R]]:
        """Yield the runs, each when it ends; see :func:`dispatcher.client.waiting.as_completed`."""
        return waiting.as_completed(runs, timeout)

    def subscribe(self, name: str, *, timeout: Seconds | None = None) -> Subscription:
        """Return all lifecycle events from now on, or from where this subscriber stopped: durably, at least once.

        Args:
            name: the subscriber's name, under which its position is kept.
            timeout: seconds, or a timedelta, without an event after which the iteration ends; None: never.

        Raises:
            InvalidInput: the name isn't 1 to 200 printable characters, or ``timeout`` is no time.
            ServerUnavailable: the server can't be reached.
        """
        from dispatcher.client.subscription import Subscription

        return Subscription(self.session.records, name, timeout=timeout)

    def workers(self) -> list[WorkerInfo]:
        """Return the live workers."""
        return self.session.records.workers.live()

    def queues(self) -> list[QueueInfo]:
        """Return the known queues, each with its waiting runs and the workers that serve it."""
        from dispatcher.inspection.queues import queues

        return queues(self.session.records)

    def explain(self, run: Run[Any] | str) -> list[str]:
        """Explain why a run isn't running, or how it ended, in plain sentences, the most important first.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.inspection.queues import explained

        return explained(self.session.records, self._run(run).id)

    @property
    def records(self) -> Records:
        """The records, for the command line and for tools. Their interfaces may change."""
        return self.session.records

    @property
    def session(self) -> ClientSession:
        """The session, opened on first use; for the modules of this package.

        Raises:
            InvalidInput: the client was closed.
            InvalidSettings: no server is set, or its URL is wrong.
            ServerUnavailable: the server can't be reached, or refuses the connection.
        """
        return self._sessions.get()

    def close(self) -> None:
        """Close connections. Ends no run; safe to call twice."""
        self._sessions.close()

    def __enter__(self) -> Dispatcher:
        self.session  # noqa: B018 - connect now, so that a wrong URL is an error here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) - {"session", "records"})

    def __repr__(self) -> str:
        return f"<Dispatcher: {self._sessions}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise InvalidInput("a Dispatcher can't be pickled: create one where you need it, or pass run ids")

    def _accept(
        self, request: SubmitRequest, parameters: Sequence[Mapping[str, Any]], keys: Sequence[str]
    ) -> list[Run[Any]]:
        self._sessions.check_backend(request.environment.backend)
        session = self.session
        build = partial(self._build, session, request, parameters, keys)
        template, records = build()
        session.ensure_worker()
        try:
            stored = _create(session, records)
        except LookupError as error:
            if isinstance(error, UnknownRun):
                raise
            session.blobs.forget()  # the server has lost or dropped what was sent before
            stored = _create(session, build()[1])
        if warning := session.missing_worker_warning(template.spec.route):
            warnings.warn(warning, DispatcherWarning, stacklevel=3)
        if session.inline:
            from dispatcher.client.inline import run_inline

            stored = [run_inline(session, record) for record in stored]
        return [Run(record.id, self._sessions, record) for record in stored]

    def _build(
        self,
        session: ClientSession,
        request: SubmitRequest,
        parameters: Sequence[Mapping[str, Any]],
        keys: Sequence[str],
    ) -> tuple[SpecTemplate, list[Record]]:
        limits, options = self.settings.limits, request.options
        now = time.time() + (session.clock_offset if options.timeout and options.start_within else 0.0)
        ring, blobs = session.keys, session.blobs
        ring.check_backend(request.environment.backend)
        if self._specs is None:
            self._specs = SpecBuilder(
                scope=session.scope, blobs=blobs, limits=limits, key_id=ring.signing_key_id, bundler=session.bundler
            )
        template = self._specs.build(request, now)
        return template, [
            new_record(template, values, keys=ring, blobs=blobs, bundler=session.bundler, limits=limits, key=key)
            for values, key in zip(parameters, keys, strict=True)
        ]

    def _run(self, run: Run[Any] | str) -> Run[Any]:
        return run if isinstance(run, Run) else self.get(run)

    def _unknown(self, run_id: str) -> str:
        if made_at(run_id) is None:
            return f"no run {shown(run_id)}: an id has 26 letters and digits; `dispatcher list` shows those of today"
        server = self.session.server_name
        return f"no run {shown(run_id)} at {server}: its retention is over, or it was submitted to another server"


def _create(session: ClientSession, records: Sequence[Record]) -> list[Record]:
    stored: list[Record] = []
    for start in range(0, len(records), _BATCH_SIZE):
        try:
            stored += session.records.runs.create(records[start : start + _BATCH_SIZE])
        except ServerUnavailable as error:
            if not stored:
                raise
            message = f"{len(stored)} of {len(records)} runs were accepted, then: {error}"
            raise ServerUnavailable(message, may_exist=True) from error
    return stored
