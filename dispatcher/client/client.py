"""The client: submits flows, finds runs, waits for them. What users' programs, notebooks and the command line hold."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dispatcher.client import filters, waiting
from dispatcher.client.run import Run
from dispatcher.client.session import Link, open_link
from dispatcher.errors import DispatcherWarning, InvalidInput, ServerUnavailable, UnknownRun
from dispatcher.flows.flow import Flow
from dispatcher.records.base import Records
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.options import Options, Seconds
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from dispatcher.submission.request import Planner, Request, Requests, SharedOnce, bound, keyed, record
from dispatcher.submission.spec_template import Plan
from dispatcher.support.ids import check_run_id, made_at
from dispatcher.support.urls import MEMORY, parse

if TYPE_CHECKING:
    from dispatcher.client.tail import Subscription
    from dispatcher.environments.base import Environment
    from dispatcher.inspection.queues import QueueInfo
    from dispatcher.storage.base import Storage

P = ParamSpec("P")
R = TypeVar("R")

#: Runs created in one call.
_PORTION = 500


class Dispatcher:
    """A client of one installation. Connects on first use; usable from any thread, and after a fork.

    As a context manager it closes its connections at the end; runs go on.

    Args:
        url: a Redis or Valkey server (:mod:`dispatcher.support.urls`); else ``DISPATCHER__URL``, else the laptop
        server.
            ``memory://`` runs each flow in this process during its submit.
        settings: all settings; else read from the variables.

    Raises:
        InvalidSettings: a setting is wrong.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        given = Settings.load(url=url) if settings is None else settings
        self.settings = given if url is None else given.but(url=url)
        if self.settings.url is not None and not self.settings.url.startswith(MEMORY):
            parse(self.settings.url)
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._shared: SharedOnce | None = None
        self._requests = Requests(self.settings)
        self._planner: Planner | None = None
        self._closed = False

    def submit(  # noqa: PLR0913 - the run options
        self,
        flow: Flow[P, R],
        parameters: Mapping[str, Any] | None = None,
        *,
        environment: Environment | None = None,
        storage: Storage | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Seconds | None = None,
        start_within: Seconds | None = None,
        result_ttl: Seconds | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | None = None,
    ) -> Run[R]:
        """Ask for a run. It is accepted once this returns, and then ends in exactly one way.

        Args:
            flow: made by ``@flow``.
            parameters: the flow's, by name.
            environment: where to run; else the flow's, else ``LocalEnvironment()``.
            storage: where the code is kept; else the flow's, else ``RedisStorage()``.
            name: the flow's name in this run.
            tags: for searching.
            timeout: seconds, or a timedelta, that an attempt may run.
            start_within: seconds, or a timedelta, within which an attempt must have started.
            result_ttl: seconds, or a timedelta, for which the ended run is kept.
            retries: further attempts, or a :class:`Retry`.
            idempotency_key: the same key with the same flow, environment, options and parameters gives the same run.

        Raises:
            InvalidFlow: not a flow, or one that can't travel.
            InvalidParameters: they don't fit the signature, or can't travel.
            InvalidInput: an option is wrong, or the environment can't be used here.
            InvalidSettings: no server, or no signing key.
            IdempotencyConflict: the key was used for something else.
            ServerUnavailable: within 15 s; ``may_exist`` says whether the run may have been accepted.
        """
        options = Options.of(
            name=name,
            tags=tags,
            timeout=timeout,
            start_within=start_within,
            result_ttl=result_ttl,
            retries=retries,
        )
        key = keyed(idempotency_key)
        asked = self._requests.checked(flow, environment, storage, options)
        return self._accept(asked, [flow.bind(parameters)], [key])[0]

    def map(  # noqa: PLR0913 - the run options
        self,
        flow: Flow[P, R],
        parameters: Iterable[Mapping[str, Any]],
        *,
        environment: Environment | None = None,
        storage: Storage | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        timeout: Seconds | None = None,
        start_within: Seconds | None = None,
        result_ttl: Seconds | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | None = None,
    ) -> list[Run[R]]:
        """Ask for many runs of one flow, in few round trips. All parameters are checked before any run is accepted.

        Args:
            flow: made by ``@flow``.
            parameters: one mapping per run.
            environment: as :meth:`submit`, and so are the options below.
            storage: as above.
            name: as above.
            tags: as above.
            timeout: as above.
            start_within: as above.
            result_ttl: as above.
            retries: as above.
            idempotency_key: the item's index is appended, ``key[0]``.

        Returns:
            The runs, in the order of ``parameters``.

        Raises:
            InvalidParameters: names the item. Otherwise what :meth:`submit` raises.
        """
        options = Options.of(
            name=name,
            tags=tags,
            timeout=timeout,
            start_within=start_within,
            result_ttl=result_ttl,
            retries=retries,
        )
        key = keyed(idempotency_key)
        asked = self._requests.checked(flow, environment, storage, options)
        many = bound(flow, parameters)
        return self._accept(asked, many, [f"{key}[{index}]" if key else "" for index in range(len(many))])

    def get(self, run_id: str) -> Run[Any]:
        """The run with this id, whoever submitted it.

        Raises:
            UnknownRun: there is none, or its retention is over.
        """
        if not isinstance(run_id, str):
            raise InvalidInput(f"run id: must be a string, got {run_id!r}")
        try:
            found, _ = self.link.records.runs.get(check_run_id(run_id))
        except UnknownRun:
            raise UnknownRun(self._unknown(run_id)) from None
        return Run(run_id, self, found)

    def get_many(self, run_ids: Iterable[str]) -> list[Run[Any] | None]:
        """The runs with these ids in the order asked, None where there is none; in few round trips."""
        ids = list(run_ids)
        found = self.link.records.runs.get_many(ids)
        return [None if one is None else Run(run_id, self, one) for run_id, one in zip(ids, found, strict=True)]

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
        """Runs, newest first, read page by page.

        Args:
            state: only those in this state.
            label: only those whose environment has it.
            flow: only those of this flow, or of flows with this name.
            tag: only those that carry it.
            since: only those created since then, or within so many seconds (or a timedelta).
            limit: how many at most; None: all.

        Raises:
            InvalidInput: a filter has a wrong value.
        """
        query = filters.query(state=state, label=label, flow=flow, tag=tag, since=since, now=self.link.records.runs.now)
        filters.check_limit(limit)
        return (Run(one.id, self, one) for one in self.link.records.runs.find(query, limit=limit))

    def cancel(self, run: Run[Any] | str) -> bool:
        """Cancel a run; see :meth:`Run.cancel`."""
        return self._run(run).cancel()

    def wait(
        self,
        runs: Iterable[Run[Any]],
        *,
        return_when: str = waiting.ALL_COMPLETED,
        timeout: float | None = None,
        progress: bool = False,
    ) -> waiting.DoneAndNotDone:
        """Wait for runs to end; see :func:`dispatcher.client.waiting.wait`."""
        return waiting.wait(runs, return_when=return_when, timeout=timeout, progress=progress)

    def as_completed(self, runs: Iterable[Run[R]], timeout: float | None = None) -> Iterator[Run[R]]:
        """The runs, each as it ends; see :func:`dispatcher.client.waiting.as_completed`."""
        return waiting.as_completed(runs, timeout)

    def subscribe(self, name: str, *, timeout: float | None = None) -> Subscription:
        """All lifecycle events from now on, or from where this subscriber stopped: durably, at least once.

        Args:
            name: the subscriber's; its position is kept under it.
            timeout: seconds without an event after which the iteration ends; None: never.
        """
        from dispatcher.client.tail import Subscription

        return Subscription(self.link.records, name, timeout=timeout)

    def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        return self.link.records.workers.live()

    def queues(self) -> list[QueueInfo]:
        """The queues known, with what waits in them and who serves them."""
        from dispatcher.inspection.queues import queues

        return queues(self.link.records)

    def explain(self, run: Run[Any] | str) -> list[str]:
        """Why a run isn't running, or how it ended: plain sentences, the most important first.

        Raises:
            UnknownRun: there is no such run.
        """
        from dispatcher.inspection.queues import explained

        return explained(self.link.records, self._run(run).id)

    @property
    def records(self) -> Records:
        """The records: for the command line and for tools; their interfaces may change."""
        return self.link.records

    @property
    def link(self) -> Link:
        """The connections, opened on first use; for the modules of this package.

        Raises:
            InvalidSettings: no server is set, or its URL is wrong.
            ServerUnavailable: the server can't be reached, or refuses us.
        """
        with self._lock:
            if self._closed:
                raise InvalidInput("this Dispatcher was closed; make another one: Dispatcher().get(run.id) finds a run")
            if self._link is None:
                self._link = open_link(self.settings)
                self._shared = SharedOnce(self._link.records.blobs)
            return self._link

    def close(self) -> None:
        """Close connections. Ends no run; safe to call twice."""
        with self._lock:
            link, self._link, self._closed = self._link, None, True
        if link is not None:
            link.close()

    def __enter__(self) -> Dispatcher:
        self.link  # noqa: B018 - connect now, so that a wrong URL shows here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else "not connected yet" if self._link is None else self._link.shown
        return f"<Dispatcher: {where}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise InvalidInput("a Dispatcher doesn't travel: make one where you need it, or pass on its runs")

    def _accept(self, asked: Request, parameters: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Run[Any]]:
        link = self.link
        build = partial(self._build, link, asked, parameters, keys)
        shared, records = build()
        link.provide()
        try:
            stored = _create(link, records)
        except LookupError as error:
            if isinstance(error, UnknownRun):
                raise
            assert self._shared is not None
            self._shared.forget()  # the server lost, or dropped, what we had sent
            stored = _create(link, build()[1])
        if advice := link.advice(shared.spec.route):
            warnings.warn(advice, DispatcherWarning, stacklevel=3)
        if link.inline:
            from dispatcher.client.inline import run_here

            stored = [run_here(link, one) for one in stored]
        return [Run(one.id, self, one) for one in stored]

    def _build(
        self, link: Link, asked: Request, parameters: Sequence[Mapping[str, Any]], keys: Sequence[str]
    ) -> tuple[Plan, list[Record]]:
        assert self._shared is not None
        limits = self.settings.limits
        now = time.time() + (link.clock_offset if asked.options.timeout and asked.options.start_within else 0.0)
        ring = link.keys
        ring.check_backend(asked.environment.backend)
        blobs = self._shared
        link.check_backend(asked.route(link.scope))
        if self._planner is None:
            self._planner = Planner(scope=link.scope, blobs=blobs, limits=limits, key_id=ring.signing_key_id)
        shared = self._planner.plan(asked, now)
        return shared, [
            record(shared, one, keys=ring, blobs=blobs, limits=limits, key=key)
            for one, key in zip(parameters, keys, strict=True)
        ]

    def _run(self, run: Run[Any] | str) -> Run[Any]:
        return run if isinstance(run, Run) else self.get(run)

    def _unknown(self, run_id: str) -> str:
        if made_at(run_id) is None:
            return f"no run {run_id!r}: an id has 26 letters and digits; `dispatcher list` shows those of today"
        return f"no run {run_id!r} at {self.link.shown}: its retention is over, or it was submitted to another server"


def _create(link: Link, records: Sequence[Record]) -> list[Record]:
    stored: list[Record] = []
    for start in range(0, len(records), _PORTION):
        try:
            stored += link.records.runs.create(records[start : start + _PORTION])
        except ServerUnavailable as error:
            if not stored:
                raise
            told = f"{len(stored)} of {len(records)} runs were accepted, then: {error}"
            raise ServerUnavailable(told, may_exist=True) from error
    return stored


_default: tuple[int, Dispatcher] | None = None
_default_lock = threading.Lock()


def default() -> Dispatcher:
    """This process's client by the settings alone; what a run that was unpickled asks."""
    global _default  # noqa: PLW0603 - one per process
    with _default_lock:
        if _default is None or _default[0] != os.getpid():
            _default = os.getpid(), Dispatcher()
        return _default[1]
