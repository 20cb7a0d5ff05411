"""The code bundles of a client: the maker that submits share, and a preview for people."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatcher.code.bundles import Bundle, Bundler, bundler_of
from dispatcher.code.exclusions import Exclusions
from dispatcher.errors import InvalidSettings

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow
    from dispatcher.settings import Settings


def bundler_for(settings: Settings) -> Bundler:
    """Return the maker of bundles that all clients of this process with the same settings share."""
    from dispatcher.serialization import PYTHON

    return bundler_of(PYTHON, settings.limits.flow, Exclusions(_private(settings)))


def _private(settings: Settings) -> frozenset[Path]:
    """The key file and the state directory, also where no setting names them."""
    from dispatcher.laptop.paths import LaptopPaths

    paths = set() if settings.signing_keys_file is None else {settings.signing_keys_file}
    with suppress(InvalidSettings):  # there is no home directory
        paths.add(LaptopPaths.of(settings).state)
    return frozenset(path.expanduser().absolute() for path in paths)


def preview(flow: Flow[..., Any], settings: Settings) -> Bundle | None:
    """Return the bundle that a submit of a flow would send now; None if it would send none.

    Raises:
        InvalidFlow: the flow can't travel.
        InvalidInput: a callback can't travel, or the bundle is too large.
    """
    from dispatcher.environments.callbacks import modules_of
    from dispatcher.serialization.pickles import modules, pack

    needed = modules(pack(flow, subject=f"flow {flow.name!r}"))
    if flow.environment is not None:
        needed |= modules_of(flow.environment.to_json())
    return bundler_for(settings).bundle(needed, flow.patterns)
