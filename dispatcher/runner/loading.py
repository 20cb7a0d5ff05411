"""Load an attempt from a signed record: verify first, then open the pickles.

Called by :mod:`dispatcher.runner.in_process` and by the runner in a container. Nothing is opened before its signature
is verified, and what can't be opened ends the attempt with a cause. Read :mod:`dispatcher.runner.invoke` next.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

from dispatcher.code.activation import BundleImporter
from dispatcher.environments import base as environments
from dispatcher.environments.base import Environment
from dispatcher.errors import FlowFailed, Permanent, SealBroken, ServerUnavailable
from dispatcher.logs.capture import Capture
from dispatcher.logs.limits import Limits
from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, counting_broken_seals
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runner.invoke import Invocation, failure
from dispatcher.runner.set_up import set_up_once
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import check_features
from dispatcher.runs.states import Cause
from dispatcher.runs.value import Value
from dispatcher.serialization import from_value, to_value
from dispatcher.serialization.seals import Returned
from dispatcher.serialization.signing_keys import RunnerCredentials
from dispatcher.storage import base as storages
from dispatcher.storage.base import Storage
from dispatcher.support.forks import in_parent_only
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads runs in this process. ``environ`` has variables to set for the flow, in addition to this process's own."""

    records: Records
    credentials: RunnerCredentials
    limits: Limits
    environ: Mapping[str, str]
    importer: BundleImporter | None = None  #: of code bundles; None where the project's modules are importable anyway
    patience: float = math.inf  #: seconds that a large result waits for a server that is away

    def load_environment(self, record: Record, now: float, *, predicted: Record | None = None) -> Environment:
        """Verify a run's signature and return its environment. Runs no code of the user.

        Args:
            record: the run.
            now: the server's clock.
            predicted: the record as it was predicted, if the run was claimed without a read.

        Raises:
            SealBroken: the signature doesn't hold, or the record's kind isn't that of its spec.
            UnknownFeature: it requires something that this release doesn't support.
            Exception: the environment's class can't be loaded here.
        """
        with counting_broken_seals(self.records.rejections, Rejected.RUN):
            self.credentials.check(record, now)
            record.mark_verified()
            check_features(record)
            if predicted is not None and predicted.spec.kind != record.spec.kind:
                raise SealBroken(f"run {record.id} is stored under another kind than its spec's: it is never opened")
        return environments.from_json(record.spec.environment, stored=True)

    def set_up(self, record: Record, environment: Environment) -> None:
        """Set up static infrastructure of an environment whose runs start in this process, once per content.

        Raises:
            Exception: what the environment's ``setup`` raises.
        """
        set_up_once(environment, self._storage(record), (record.spec.environment, record.spec.storage))

    def load(self, record: Record, environment: Environment, guard: InterruptGuard, capture: Capture) -> Invocation:
        """Load the attempt. If its flow or parameters can't be opened, the invocation has ``failed`` set.

        Raises:
            ServerUnavailable: the server was away for ten minutes.
        """
        make = partial(self._invocation, record, environment, guard=guard, log_tail=capture.tail)
        flow = f"flow {record.spec.flow!r}"
        opened: dict[str, Any] = {}
        for name, subject, load in (
            ("code", f"the code of {flow}", partial(self._import_bundles, record)),
            ("body", flow, partial(self._body, record, environment)),
            ("parameters", f"the parameters of {flow}", partial(self._parameters, record)),
        ):
            try:
                opened[name] = retry_while_unavailable(partial(in_parent_only, load), within=MAX_OUTAGE)
            except ServerUnavailable:
                raise
            except BaseException as error:  # importing and unpickling runs the user's code, which may raise anything
                return make(body=_no_body, failed=loading_failed(error, capture, subject=subject))
        del opened["code"]
        return make(**opened)

    def load_for_exit(
        self, record: Record, environment: Environment, *, plain: bool
    ) -> tuple[Invocation, BaseException | None]:
        """Load what ``on_exit`` gets to see of an attempt whose process died: the invocation and, if the flow failed,
        an exception in place of the flow's own, which isn't opened because a container may have made it.

        Args:
            record: the run.
            environment: its environment.
            plain: load parameters only if they are JSON, and import from no bundle, because the flow ran in a container
                and not in a worker.

        Raises:
            Exception: the project's modules can't be imported here.
        """
        parameters: Any = {}
        if not plain:
            retry_while_unavailable(partial(self._import_bundles, record), within=MAX_OUTAGE)
        if not plain or record.spec.parameters.codec == "json":
            try:
                parameters = in_parent_only(partial(self._parameters, record))
            except BaseException:  # unpickling may raise anything; on_exit is called without parameters then
                parameters = {}
        invocation = self._invocation(record, environment, body=_no_body, parameters=parameters)
        outcome = record.outcome
        if outcome is None or outcome.exception is None:
            return invocation, None
        message = f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason
        return invocation, FlowFailed(message, run_id=record.id, state=outcome.state, traceback=outcome.traceback)

    def _invocation(self, record: Record, environment: Environment, **more: Any) -> Invocation:
        spec = record.spec
        return Invocation(
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

    def _import_bundles(self, record: Record) -> None:
        """Make the project's modules importable, until the importer is told to leave them."""
        if self.importer is None:
            return
        stored = storages.bundle_with(self._storage(record), record.spec.location)
        own = {} if stored is None else {sha256(stored).hexdigest(): stored}
        with counting_broken_seals(self.records.rejections, Rejected.RUN):
            self.importer.enter(
                [*own, *record.spec.bundles],
                lambda digest: own[digest] if digest in own else self.records.blobs.get(digest),
            )

    def _storage(self, record: Record) -> Storage:
        storage = storages.from_json(record.spec.storage, stored=True)
        storage.bind(self.records.blobs)
        return storage

    def _body(self, record: Record, environment: Environment) -> Callable[[Mapping[str, Any]], Any]:
        storage = self._storage(record)
        env = None if self.environ is os.environ else self.environ
        with counting_broken_seals(self.records.rejections, Rejected.RUN):
            return environment.load(storage, record.spec.location, env=env)

    def _parameters(self, record: Record) -> Any:
        # The verified spec has their digest, so no further key is needed.
        with counting_broken_seals(self.records.rejections, Rejected.RUN):
            return from_value(
                record.spec.parameters, get=self.records.blobs.get, seal=None, trusted=True, each="parameter"
            )

    def _to_value(self, record: Record, obj: Any, kind: Returned) -> Value:
        limits = self.limits
        name = f"result-{record.attempt}-{record.epoch}"
        return to_value(
            obj,
            subject=f"the {kind} of flow {record.spec.flow!r}",
            limit_inline=limits.inline,
            limit=limits.result,
            put=lambda data: retry_while_unavailable(
                lambda: self.records.blobs.own(record.id, name, data), within=self.patience
            ),
            seal=self.credentials.seal(record),
            kind=kind,
            setting="DISPATCHER__LIMITS__RESULT",
        )


def loading_failed(error: BaseException, capture: Capture | None = None, *, subject: str = "") -> Outcome:
    """Return the outcome of an attempt whose ``subject`` (its flow, its parameters) could not be opened."""
    cause = Cause.CONFIG_ERROR if isinstance(error, Exception) else Cause.USER_ERROR
    if isinstance(error, Permanent):
        cause = error.cause
    if isinstance(error, KeyError):
        error = LookupError(f"bytes that the run needs are gone: blob {error.args[0] if error.args else '?'}")
    outcome = failure(error, cause, log_tail=capture.tail() if capture else ())
    if not subject:
        return outcome
    return replace(outcome, message=f"{subject} can't be opened: {outcome.message or outcome.reason}")


def _no_body(_parameters: Mapping[str, Any]) -> None:
    """Never called: loading has failed, or only ``on_exit`` is called."""
