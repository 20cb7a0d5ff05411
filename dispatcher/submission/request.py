"""The request of a ``submit`` or ``map``: its options merged and checked. Used by the client and ``dispatcher render``.

:mod:`dispatcher.submission.spec_builder` makes a spec of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

from dispatcher.errors import InvalidInput
from dispatcher.flows.flow import DefaultEnvironment, DefaultStorage, Flow
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.options import Options
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.value import Value
from dispatcher.settings import Settings
from dispatcher.submission.calls import checked_flow
from dispatcher.support.escaping import shown

if TYPE_CHECKING:
    from dispatcher.environments.base import Environment
    from dispatcher.storage.base import Storage

#: Longest idempotency key, in characters.
LONGEST_KEY = 500


@dataclass(frozen=True, kw_only=True)
class SubmitRequest:
    """The checked request of a submit: everything but the parameters."""

    flow: Flow[..., Any]
    environment: Environment
    storage: Storage
    options: Options

    def route(self, scope: str) -> Route:
        """Return the queue of its runs."""
        return Route(self.environment.backend, tuple(self.environment.labels), scope)


class RequestChecker:
    """Check requests. Return the last one again if the next submit asks for the same."""

    def __init__(self, settings: Settings) -> None:
        defaults = settings.defaults
        self._defaults = Options.of(
            timeout=defaults.timeout,
            start_within=defaults.start_within,
            result_ttl=defaults.result_ttl,
            retries=defaults.retries,
        )
        self._last: tuple[tuple[Any, ...], Options, SubmitRequest] | None = None

    def check(
        self, flow: Flow[..., Any], environment: Environment | str | None, storage: Storage | None, options: Options
    ) -> SubmitRequest:
        """Merge the options of submit, flow and settings, in this order of precedence, and check them.

        Raises:
            InvalidFlow: not a flow.
            InvalidInput: environment or storage isn't one, or can't work.
            TypeError: code in that environment can't reach that storage.
        """
        flow = checked_flow(flow)
        wanted = flow.environment if environment is None else environment
        if isinstance(wanted, str):
            from dispatcher.environments.named import named

            wanted = named(wanted)  # at each submit: the configuration file may have changed
        arguments = (flow, wanted, storage, flow.storage, flow.options, flow.name)
        last = self._last
        if last is not None and all(map(is_, arguments, last[0])) and last[1] == options:
            return last[2]
        request = SubmitRequest(
            flow=flow,
            environment=_environment(wanted),
            storage=_storage(flow.storage if storage is None else storage),
            options=options.over(flow.options).over(self._defaults),
        )
        request.environment.check_storage(request.storage)
        self._last = arguments, options, request
        return request


def _environment(environment: DefaultEnvironment | None) -> Environment:
    from dispatcher import registry
    from dispatcher.environments.base import Environment

    if environment is None:
        environment = registry.environment("LocalEnvironment")()
    if not isinstance(environment, Environment):
        raise InvalidInput(f"environment: must be an environment, such as LocalEnvironment(), got {shown(environment)}")
    environment.check()
    return environment


def _storage(storage: DefaultStorage | None) -> Storage:
    from dispatcher import registry
    from dispatcher.storage.base import Storage
    from dispatcher.storage.redis import RedisStorage

    if storage is None:
        return RedisStorage()
    if not isinstance(storage, Storage):
        raise InvalidInput(f"storage: must be a storage, such as RedisStorage(), got {shown(storage)}")
    registry.STORAGES.check(storage, storage.to_json()["type"])
    return storage


def check_key(key: str | None) -> str:
    """Return the idempotency key as a record holds it; empty for None.

    Raises:
        InvalidInput: it is not a non-empty printable string, or too long.
    """
    if key is None:
        return ""
    if not isinstance(key, str) or not key or not key.isprintable() or len(key) > LONGEST_KEY:
        raise InvalidInput(f"idempotency_key: must be 1 to {LONGEST_KEY} printable characters, got {shown(key)}")
    return key


def preview_attempt(
    request: SubmitRequest,
    run_id: str,
    number: int,
    *,
    instance: str,
    place: str = "",
    variables: Mapping[str, str],
) -> Attempt:
    """Return an attempt as a backend would get it, without submitting a run."""
    spec = Spec(
        run_id=run_id,
        flow=request.flow.name,
        storage=request.storage.to_json(),
        location="",
        parameters=Value(codec="json", inline="{}"),
        environment=request.environment.to_json(),
        route=request.route(""),
        options=request.options,
    )
    return Attempt.of(spec, number, instance=instance, place=place, variables=variables)
