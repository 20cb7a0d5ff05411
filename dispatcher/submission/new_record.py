"""The record of a new run, its spec signed. Used by the client; I/O only through the blobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

from dispatcher.code.bundles import Bundler
from dispatcher.errors import InvalidInput, InvalidParameters, Malformed
from dispatcher.records.blobs import Blobs
from dispatcher.runs.record import Record
from dispatcher.runs.spec import Spec
from dispatcher.settings import LimitSettings
from dispatcher.submission.spec_template import SpecTemplate
from dispatcher.support.ids import new_id
from dispatcher.support.parsing import MOST, bounded

if TYPE_CHECKING:
    from dispatcher.serialization import KeyRing

# An empty record: copying it is quicker than making one.
_EMPTY = Record(id="", spec_bytes=b"", signature="", spec_digest="")


def new_record(
    template: SpecTemplate,
    parameters: Mapping[str, Any],
    *,
    keys: KeyRing,
    blobs: Blobs,
    bundler: Bundler,
    limits: LimitSettings,
    key: str = "",
) -> Record:
    """Return a new run's record, its spec signed.

    Args:
        template: the spec that it shares with others.
        parameters: bound to the flow's signature.
        keys: sign it.
        blobs: keep large parameters.
        bundler: packs files of the project that only the parameters need.
        limits: sizes.
        key: the idempotency key; empty: none.

    Raises:
        InvalidParameters: they can't travel, or are too large.
        InvalidInput: the spec is too large, or nested too deep.
    """
    from dispatcher.serialization import to_value

    modules: set[str] = set()
    value = to_value(
        dict(parameters),
        subject=f"parameters of flow {template.spec.flow!r}",
        limit_inline=limits.inline,
        limit=limits.parameters,
        put=blobs.share,
        named_by_digest=True,
        seal=None,
        error=InvalidParameters,
        setting="DISPATCHER__LIMITS__PARAMETERS",
        each="parameter",
        modules=modules,
    )
    extra = _extra_bundle(template.spec, modules, blobs, bundler) if modules else ()
    spec, raw = template.fill(new_id(), value, bundles=extra)
    try:
        bounded(raw, "environment", MOST)
    except Malformed as error:
        raise InvalidInput(f"{error}: pass less with it, such as the address of a file") from None
    record = _EMPTY.but(
        id=spec.run_id,
        spec_bytes=raw,
        signature=keys.sign(spec.run_id, raw),
        spec_digest=spec_digest(spec, parameters) if key else "",
        key=key,
    )
    record.__dict__["_spec"] = spec  # what Record.spec caches: parsing 5,000 specs again takes longer than the rest
    return record


def _extra_bundle(spec: Spec, modules: Set[str], blobs: Blobs, bundler: Bundler) -> tuple[str, ...]:
    """Share the files of modules that the parameters name and the flow doesn't reach; return their bundle's digest."""
    from dispatcher.storage.base import from_json

    bundle = bundler.bundle(modules, installed=from_json(spec.storage).installed(spec.location))
    if bundle is None or bundle.digest in spec.bundles or bundler.covers(spec.bundles, modules):
        return ()
    return (blobs.share(bundle.data, bundle.digest),)


def spec_digest(spec: Spec, parameters: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that two submits under one idempotency key must have in common.

    Sealed bytes are left out: cloudpickle gives other bytes for the same function in another process.
    """
    if spec.parameters.codec == "json":
        comparable: Any = parameters
    else:
        comparable = {name: _comparable(value) for name, value in parameters.items()}
    common = {
        "flow": spec.flow,
        "environment": _without_sealed(spec.environment),
        "labels": sorted(spec.route.labels),
        "options": spec.options.to_json(),
        "parameters": comparable,
    }
    return hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()


def _without_sealed(data: Any) -> Any:
    """Return JSON data with the word ``sealed`` in place of each sealed part."""
    if isinstance(data, Mapping):
        return "sealed" if set(data) == {"sealed"} else {name: _without_sealed(part) for name, part in data.items()}
    return [_without_sealed(part) for part in data] if isinstance(data, list | tuple) else data


def _comparable(value: Any) -> Any:
    """Return the value if JSON can hold it, else the word ``sealed``."""
    try:
        json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return "sealed"
    return value
