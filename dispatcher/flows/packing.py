"""A flow packed together with the code bundle that it imports from, for files and storages that keep both in one."""

from __future__ import annotations

from typing import Any

from dispatcher.code.bundles import Bundler, bundler_for
from dispatcher.errors import InvalidFlow
from dispatcher.flows.flow import Flow


def pack_flow(flow: Flow[..., Any], *, bundler: Bundler | None = None) -> bytes:
    """Pack a flow, with the files of its project as they are now.

    Args:
        flow: the flow.
        bundler: packs the files; by default as this process's settings say.

    Raises:
        InvalidFlow: the flow can't travel; names the object and where it is used.
        InvalidInput: the files are too large or too many.
    """
    from dispatcher.serialization import pack

    return add_bundle(pack(flow, subject=f"flow {flow.name!r}", error=InvalidFlow), flow, bundler=bundler)


def add_bundle(data: bytes, flow: Flow[..., Any], *, bundler: Bundler | None = None) -> bytes:
    """Return a packed flow with the files of its project behind it, if it has any. See :func:`pack_flow`."""
    from dispatcher.serialization import pickles
    from dispatcher.settings import Settings

    modules = pickles.modules(data)
    if not modules:
        return data
    bundle = (bundler or bundler_for(Settings.load())).bundle(modules, flow.patterns)
    return data if bundle is None else pickles.with_bundle(data, bundle.data)


def bundle_in(data: bytes) -> bytes | None:
    """Return the code bundle behind a packed flow; None if there is none. Opens nothing.

    Raises:
        Malformed: the bytes end before the bundle that they announce.
    """
    from dispatcher.serialization import pickles

    return pickles.bundle_in(data)
