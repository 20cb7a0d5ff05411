"""The backend of flows that run in a pool process of the worker, task after task."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from backends.base import InProcess
from dispatcher.environments.base import Environment
from dispatcher.errors import InvalidInput, InvalidParameters
from dispatcher.runs.routing import LOCAL
from dispatcher.runs.spec import FRESH_PROCESS
from dispatcher.storage.base import PARAMETERS

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage


class LocalEnvironment(Environment):
    """Runs the flow in this process: a worker's pool process, or yours on ``execute``.

    If the storage can't return the flow itself, its runner (``get_env_runner``) is called with this process's
    environment variables, those of ``env``, and the parameters as JSON in ``DISPATCHER__PARAMETERS``.

    Args:
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow.
        on_exit: called without argument after the flow, however it ended.
        fresh_process: run the flow in a process that runs nothing else, before or after. Else processes are reused, one
            run after the other; see the page on environments. Without a worker it has no meaning.
    """

    backend: ClassVar[str] = LOCAL
    added: ClassVar[tuple[str, ...]] = ("fresh_process",)

    fresh_process: bool

    def __init__(
        self,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        fresh_process: bool = False,
    ) -> None:
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        if not isinstance(fresh_process, bool):
            raise InvalidInput(f"LocalEnvironment.fresh_process: must be true or false, got {fresh_process!r:.100}")
        self.fresh_process = fresh_process

    @property
    def requires(self) -> tuple[str, ...]:
        return (FRESH_PROCESS,) if self.fresh_process else ()

    def _added_json(self) -> dict[str, Any]:
        return {"fresh_process": True} if self.fresh_process else {}

    def load(
        self, storage: Storage, flow_location: str, *, env: Mapping[str, str] | None = None
    ) -> Callable[[Mapping[str, Any]], Any]:
        try:
            return self._runner(storage.get_flow(flow_location), env)
        except NotImplementedError:  # NoFlowHere, or of a storage of others
            pass
        runner = storage.get_env_runner(flow_location)
        run = getattr(runner, "unopened", runner)  # a worker doesn't open a container's result
        return lambda parameters: run({**os.environ, **(env or {}), PARAMETERS: _as_json(parameters)})


class LocalBackend(InProcess):
    """The backend of :class:`LocalEnvironment`."""

    name: ClassVar[str] = LOCAL


def _as_json(parameters: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(parameters), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameters(
            f"{PARAMETERS}: parameters must be JSON where the storage can't give the flow itself: {error}"
        ) from None
