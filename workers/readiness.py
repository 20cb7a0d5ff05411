"""The readiness of a worker: logged once it consumes, with the backends that it can't reach yet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from backends.base import Backend
from dispatcher.support.tracebacks import described

logger = logging.getLogger(__name__)


def log_ready(worker: str, backends: Collection[str], backend: Callable[[str], Backend]) -> None:
    """Log that a worker is ready, and which backends can't be reached. Doesn't wait for their answers.

    Args:
        worker: its id.
        backends: names of those that may be unreachable.
        backend: gives a backend by its name.
    """
    if backends:
        arguments = (worker, backends, backend)
        threading.Thread(target=_log, args=arguments, name="dispatcher-ready", daemon=True).start()
    else:
        _log(worker, (), backend)


def _log(worker: str, backends: Collection[str], backend: Callable[[str], Backend]) -> None:
    problems = {name: _problem(name, backend) for name in sorted(backends)}
    unreachable = "; ".join(f"{name} can't be reached: {problem}" for name, problem in problems.items() if problem)
    if unreachable:
        logger.warning("Worker %s is ready, but %s (its runs wait)", worker, unreachable)
    else:
        logger.info("Worker %s is ready", worker)


def _problem(name: str, backend: Callable[[str], Backend]) -> str:
    try:
        return backend(name).unreachable()
    except Exception as error:  # of a plug-in: the worker is ready all the same
        return described(error)
