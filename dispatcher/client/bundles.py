"""The code bundles of a client, and a preview for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.code.bundles import Bundle, bundler_for

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow
    from dispatcher.settings import Settings


def preview(flow: Flow[..., Any], settings: Settings) -> Bundle | None:
    """Return the bundle that a submit of a flow would send now; None if it would send none.

    Raises:
        InvalidFlow: the flow can't travel.
        InvalidInput: a callback can't travel, or the bundle is too large.
    """
    from dispatcher.environments.callbacks import modules_of
    from dispatcher.environments.named import named
    from dispatcher.serialization.pickles import modules, pack

    needed = modules(pack(flow, subject=f"flow {flow.name!r}"))
    environment = named(flow.environment) if isinstance(flow.environment, str) else flow.environment
    if environment is not None:
        needed |= modules_of(environment.to_json())
    return bundler_for(settings).bundle(needed, flow.patterns)
