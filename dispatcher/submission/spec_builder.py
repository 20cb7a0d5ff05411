"""Stores a flow's code and builds the spec that the runs of a request share. Used by the client.

The result is a :class:`~dispatcher.submission.spec_template.SpecTemplate`. I/O happens only through the storage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dispatcher.code.bundles import Bundler
from dispatcher.environments.callbacks import modules_of
from dispatcher.records.blobs import Blobs
from dispatcher.runs.context import context
from dispatcher.runs.lifetime import expiry
from dispatcher.runs.spec import BUNDLE, Spec
from dispatcher.settings import LimitSettings
from dispatcher.storage.base import bundle_with
from dispatcher.submission.module_names import check_modules
from dispatcher.submission.request import SubmitRequest
from dispatcher.submission.spec_template import NO_PARAMETERS, SpecTemplate


class _Facts(NamedTuple):
    """The parts of a spec that may differ between two submits of one request."""

    environment: dict[str, Any]
    storage: dict[str, Any]
    location: str
    bundle: str  #: the digest of the project's files; empty if none travel
    kept: bool  #: the storage keeps such files with the flow
    expires: float
    parent: str  #: the run whose flow submits; empty outside of flows


class SpecBuilder:
    """Build spec templates. Return the last one again if nothing has changed since.

    Args:
        scope: the queue's.
        blobs: where code that travels by value is kept.
        limits: sizes.
        key_id: the key that signs.
        bundler: packs the project's files.
    """

    def __init__(self, *, scope: str, blobs: Blobs, limits: LimitSettings, key_id: str, bundler: Bundler) -> None:
        self._scope = scope
        self._blobs = blobs
        self._limits = limits
        self._key_id = key_id
        self._bundler = bundler
        self._last: tuple[SubmitRequest, _Facts, SpecTemplate] | None = None

    def build(self, request: SubmitRequest, now: float) -> SpecTemplate:
        """Store the flow's code as it is now, and return the template of its runs.

        Args:
            request: the checked request.
            now: the server's clock, in seconds since the epoch.

        Raises:
            InvalidFlow: the flow can't travel.
            InvalidInput: a callback can't travel, or the storage isn't built.
        """
        facts = self._facts(request, now)
        last = self._last
        if last is not None and last[0] is request and last[1] == facts:
            return last[2]
        template = SpecTemplate(self._spec(request, facts))
        self._last = request, facts, template
        return template

    def _facts(self, request: SubmitRequest, now: float) -> _Facts:
        environment, storage = request.environment.to_json(), request.storage
        storage.bind(self._blobs, limit=self._limits.flow)
        storage.bundler = self._bundler
        location = storage.add_code(request.flow)
        storage.check()
        modules = storage.modules(location) | modules_of(environment)
        bundle = self._bundler.bundle(modules, request.flow.patterns, installed=storage.installed(location))
        if bundle is not None:
            check_modules(request.environment, bundle.selection.modules)
        return _Facts(
            environment=environment,
            storage=storage.to_json(),
            location=location,
            bundle="" if bundle is None else self._blobs.share(bundle.data, bundle.digest),
            kept=not storage.shared_blob and bundle_with(storage, location) is not None,
            expires=expiry(request.options, now, unbounded=self._limits.signature),
            parent=context.run_id or "",
        )

    def _spec(self, request: SubmitRequest, facts: _Facts) -> Spec:
        from dispatcher.support.interpreter import PYTHON

        bundles = (facts.bundle,) if facts.bundle else ()
        return Spec(
            run_id="",
            flow=request.flow.name,
            storage=facts.storage,
            location=facts.location,
            parameters=NO_PARAMETERS,
            environment=facts.environment,
            route=request.route(self._scope),
            options=request.options,
            on_start=request.environment.on_start is not None,
            on_exit=request.environment.on_exit is not None,
            python=PYTHON,
            blobs=((facts.location,) if request.storage.shared_blob else ()) + bundles,
            key_id=self._key_id,
            expires=facts.expires,
            requires=request.environment.requires + ((BUNDLE,) if bundles or facts.kept else ()),
            bundles=bundles,
            parent=facts.parent,
        )
