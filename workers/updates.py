"""Run transitions that another worker may take first. For sweeps and supervisors: several of them may see one run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dispatcher.errors import LeasePassed, Refused, UnknownRun

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


def try_update(update: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | None:
    """Call ``update`` and return its result; None if the run is gone, or another change made this one obsolete.

    Args:
        update: usually :meth:`~dispatcher.records.runs.Runs.update`; the arguments follow.

    Raises:
        LeasePassed: the caller acts for a shard that has another holder now.
    """
    try:
        return update(*arguments, **keywords)
    except LeasePassed:
        raise
    except (Refused, UnknownRun) as error:
        logger.debug("Nothing to do: %s", error)
        return None
