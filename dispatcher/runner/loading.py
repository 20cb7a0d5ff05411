"""From a signed record to a job: verify first, then open. Called by :mod:`dispatcher.runner.in_process`.

Whatever can't be opened ends the attempt with a cause; nothing is opened whose signature doesn't hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dispatcher.environments import base as environments
from dispatcher.environments.base import Environment
from dispatcher.errors import FlowFailed, Permanent, SealBroken, ServerUnavailable
from dispatcher.logs.capture import Capture
from dispatcher.logs.limits import Limits
from dispatcher.records.base import Records
from dispatcher.records.rejections import What, counted
from dispatcher.runner.interrupts import Guard
from dispatcher.runner.invoke import Job, failure
from dispatcher.runs.record import Outcome, Record, Value
from dispatcher.runs.requirements import refuse_lacking
from dispatcher.runs.states import Cause
from dispatcher.serialization import from_value, to_value
from dispatcher.serialization.seals import Returned
from dispatcher.serialization.signing_keys import Credentials
from dispatcher.storage import base as storages
from dispatcher.support.forks import in_parent_only
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable


@dataclass(frozen=True, kw_only=True)
class Opener:
    """The means to open runs here. ``environ`` holds variables to set for the flow, on top of this process's."""

    records: Records
    credentials: Credentials
    limits: Limits
    environ: Mapping[str, str]
    patience: float = math.inf  #: seconds that a large result waits for a server that is away

    def environment(self, record: Record, now: float, *, taken_for: Record | None = None) -> Environment:
        """The environment of a run whose signature holds. Runs nobody's code.

        Args:
            record: the run.
            now: the server's clock.
            taken_for: what it was claimed as, where that was guessed by the kind that its record tells.

        Raises:
            SealBroken: the signature doesn't hold, or the record told another kind than its spec.
            Lacking: it requires what this release doesn't know.
            Exception: the environment's class can't be had here.
        """
        with counted(self.records.refusals, What.RUN):
            self.credentials.check(record, now)
            record.mark_verified()
            refuse_lacking(record)
            if taken_for is not None and taken_for.spec.kind != record.spec.kind:
                raise SealBroken(f"run {record.id} was stored as another kind than its spec says: it is never opened")
        return environments.from_json(record.spec.environment, stored=True)

    def job(self, record: Record, environment: Environment, guard: Guard, capture: Capture) -> Job:
        """The attempt, opened; or, with ``failed`` set, what there is of it and why it could not be opened.

        Raises:
            ServerUnavailable: the server was away for long.
        """
        make = partial(self._job, record, environment, guard=guard, log_tail=capture.tail)
        flow = f"flow {record.spec.flow!r}"
        opened: dict[str, Any] = {}
        for name, what, opening in (
            ("body", flow, partial(self._body, record, environment)),
            ("parameters", f"the parameters of {flow}", partial(self._parameters, record)),
        ):
            try:
                opened[name] = retry_while_unavailable(partial(in_parent_only, opening), within=MAX_OUTAGE)
            except ServerUnavailable:
                raise
            except BaseException as error:  # whatever the user's code raises as it is imported or opened
                return make(body=_no_body, failed=not_opened(error, capture, what=what))
        return make(**opened)

    def exit_job(self, record: Record, environment: Environment, *, plain: bool) -> tuple[Job, BaseException | None]:
        """Return what ``on_exit`` may know of an attempt whose process died: the job, and what tells of the flow's
        exception if there is one. The exception itself isn't opened: a container may have made it.

        Args:
            record: the run.
            environment: its environment.
            plain: give parameters only where they are JSON, since the flow's place was a container and not a worker.
        """
        parameters: Any = {}
        if not plain or record.spec.parameters.codec == "json":
            try:
                parameters = in_parent_only(partial(self._parameters, record))
            except BaseException:  # whatever their code raises; nobody but on_exit asks for them
                parameters = {}
        job = self._job(record, environment, body=_no_body, parameters=parameters)
        outcome = record.outcome
        if outcome is None or outcome.exception is None:
            return job, None
        message = f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
        return job, FlowFailed(message, run_id=record.id, state=outcome.state, traceback=outcome.traceback)

    def _job(self, record: Record, environment: Environment, **more: Any) -> Job:
        spec = record.spec
        return Job(
            run_id=record.id,
            attempt=record.attempt,
            flow=spec.flow,
            labels=spec.labels,
            tags=spec.tags,
            on_start=environment.on_start,
            on_exit=environment.on_exit,
            to_value=partial(self._to_value, record),
            **more,
        )

    def _body(self, record: Record, environment: Environment) -> Callable[[Mapping[str, Any]], Any]:
        storage = storages.from_json(record.spec.storage, stored=True)
        storage.bind(self.records.blobs)
        env = None if self.environ is os.environ else self.environ
        with counted(self.records.refusals, What.RUN):
            return environment.load(storage, record.spec.location, env=env)

    def _parameters(self, record: Record) -> Any:
        # The verified spec holds their digest, so no further key is needed.
        with counted(self.records.refusals, What.RUN):
            return from_value(
                record.spec.parameters, get=self.records.blobs.get, seal=None, trusted=True, each="parameter"
            )

    def _to_value(self, record: Record, obj: Any, kind: Returned) -> Value:
        limits = self.limits
        name = f"result-{record.attempt}-{record.epoch}"
        return to_value(
            obj,
            what=f"the {kind} of flow {record.spec.flow!r}",
            limit_inline=limits.inline,
            limit=limits.result,
            put=lambda data: retry_while_unavailable(
                lambda: self.records.blobs.own(record.id, name, data), within=self.patience
            ),
            seal=self.credentials.seal(record),
            kind=kind,
            setting="DISPATCHER__LIMITS__RESULT",
        )


def not_opened(error: BaseException, capture: Capture | None = None, *, what: str = "") -> Outcome:
    """The outcome of an attempt of which ``what`` could not be opened."""
    cause = Cause.CONFIG_ERROR if isinstance(error, Exception) else Cause.USER_ERROR
    if isinstance(error, Permanent):
        cause = error.cause
    if isinstance(error, KeyError):
        error = LookupError(f"bytes that the run needs are gone: blob {error.args[0] if error.args else '?'}")
    outcome = failure(error, cause, log_tail=capture.tail() if capture else ())
    if not what:
        return outcome
    return replace(outcome, message=f"{what} can't be opened: {outcome.message or outcome.reason}")


def _no_body(_parameters: Mapping[str, Any]) -> None:
    """Never called: the job has failed, or only its ``on_exit`` is due."""
