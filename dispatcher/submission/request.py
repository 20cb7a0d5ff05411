"""From a flow, its parameters and options to signed records. For the client; I/O only through the blobs given."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from dispatcher.errors import InvalidFlow, InvalidInput, InvalidParameters, Malformed
from dispatcher.flows.flow import Flow
from dispatcher.records.base import Blobs
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.context import context
from dispatcher.runs.lifetime import expiry
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record, Spec, Value
from dispatcher.runs.routing import Route
from dispatcher.settings import LimitSettings, Settings
from dispatcher.submission.spec_template import NONE_YET, Plan
from dispatcher.support import signatures
from dispatcher.support.ids import new_id
from dispatcher.support.parsing import MOST, bounded

if TYPE_CHECKING:
    from dispatcher.environments.base import Environment
    from dispatcher.serialization import KeyRing
    from dispatcher.storage.base import Storage

#: Longest idempotency key, in characters.
LONGEST_KEY = 500

#: Seconds for which a shared blob isn't sent again; the server keeps it for an hour at least.
REMEMBER = 1800.0

# A record that says nothing yet: to copy it is quicker than to make one.
_NEW = Record(id="", spec_bytes=b"", signature="", spec_digest="")

#: JSON of the environment and of the storage, the code's location, when the signature expires, and which run submits.
_Said = tuple[dict[str, Any], dict[str, Any], str, float, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The checked request of a submit: everything but the parameters."""

    flow: Flow[..., Any]
    environment: Environment
    storage: Storage
    options: Options

    @property
    def name(self) -> str:
        """The flow's name in this run."""
        return self.options.name or self.flow.name

    def route(self, scope: str) -> Route:
        """Return the queue of its runs."""
        return Route(self.environment.backend, tuple(self.environment.labels), scope)


class SharedOnce(Blobs):
    """Shares bytes, and sends none that were sent a while ago: 10,000 submits of one flow send it once.

    Args:
        blobs: where they are kept.
        clock: monotonic seconds.
    """

    def __init__(self, blobs: Blobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._sent: dict[str, float] = {}
        self._lock = threading.Lock()

    def share(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        now = self._clock()
        with self._lock:
            if now - self._sent.get(digest, -REMEMBER) < REMEMBER:
                return digest
        digest = self._blobs.share(data, digest)
        with self._lock:
            if len(self._sent) > 1000:
                self._sent.clear()
            self._sent[digest] = now
        return digest

    def forget(self) -> None:
        """Send everything anew: the server lost something."""
        with self._lock:
            self._sent.clear()

    def get(self, name: str) -> bytes:
        return self._blobs.get(name)

    def own(self, run_id: str, name: str, data: bytes) -> str:
        return self._blobs.own(run_id, name, data)

    def has(self, name: str) -> bool:
        return self._blobs.has(name)


class Requests:
    """Checks what is asked for; what is asked for again, one submit after the other, isn't checked again."""

    def __init__(self, settings: Settings) -> None:
        defaults = settings.defaults
        self._least = Options.of(
            timeout=defaults.timeout,
            start_within=defaults.start_within,
            result_ttl=defaults.result_ttl,
            retries=defaults.retries,
        )
        self._last: tuple[tuple[Any, ...], Options, Request] | None = None

    def checked(
        self, flow: Flow[..., Any], environment: Environment | None, storage: Storage | None, options: Options
    ) -> Request:
        """Merge what was said at submit, at the flow and in the settings, in this order, and check it.

        Raises:
            InvalidFlow: not a flow.
            InvalidInput: environment or storage isn't one, or can't work.
            TypeError: what would run the flow can't reach the storage.
        """
        if not isinstance(flow, Flow):
            remedy = "decorate it with @flow" if callable(flow) else "give a function decorated with @flow"
            raise InvalidFlow(f"flow: {flow!r} is no flow; {remedy}")
        given = (flow, environment, storage, flow.environment, flow.storage, flow.options, flow.name)
        last = self._last
        if last is not None and all(map(is_, given, last[0])) and last[1] == options:
            return last[2]
        merged = options.over(flow.options).over(self._least)
        made = Request(
            flow=flow,
            environment=_environment(flow.environment if environment is None else environment),
            storage=_storage(flow.storage if storage is None else storage),
            options=merged,
        )
        made.environment.check_storage(made.storage)
        self._last = given, options, made
        return made


def _environment(given: Environment | None) -> Environment:
    from dispatcher import registry
    from dispatcher.environments.base import Environment

    environment = registry.environment("LocalEnvironment")() if given is None else given
    if not isinstance(environment, Environment):
        raise InvalidInput(f"environment: must be an environment, such as LocalEnvironment(), got {environment!r}")
    environment.check()
    return environment


def _storage(given: Storage | None) -> Storage:
    from dispatcher.storage.base import Storage
    from dispatcher.storage.redis import RedisStorage

    storage = RedisStorage() if given is None else given
    if not isinstance(storage, Storage):
        raise InvalidInput(f"storage: must be a storage, such as RedisStorage(), got {storage!r}")
    return storage


class Planner:
    """Says what the runs of a request share; again what it said last, if that is the same.

    Args:
        scope: of the queue.
        blobs: where code that travels by value is kept.
        limits: sizes.
        key_id: the key that signs.
    """

    def __init__(self, *, scope: str, blobs: Blobs, limits: LimitSettings, key_id: str) -> None:
        self._scope = scope
        self._blobs = blobs
        self._limits = limits
        self._key_id = key_id
        self._last: tuple[Request, _Said, Plan] | None = None

    def plan(self, request: Request, now: float) -> Plan:
        """Keep the flow's code as it is now, and say everything that its runs share.

        Args:
            request: what was asked for.
            now: the server's clock, in seconds since the epoch.

        Raises:
            InvalidFlow: the flow can't travel.
            InvalidInput: a callback can't travel, or the storage isn't built.
        """
        environment, storage = request.environment, request.storage
        data = environment.to_json()
        storage.bind(self._blobs, limit=self._limits.flow)
        location = storage.add_flow(request.flow)
        storage.check()
        now_said: _Said = (
            data,
            storage.to_json(),
            location,
            expiry(request.options, now, unbounded=self._limits.signature),
            context.run_id or "",
        )
        last = self._last
        if last is not None and last[0] is request and last[1] == now_said:
            return last[2]
        plan = Plan(self._spec(request, now_said))
        self._last = request, now_said, plan
        return plan

    def _spec(self, request: Request, said: _Said) -> Spec:
        from dispatcher.serialization import PYTHON

        environment, storage, location, expires, parent = said
        return Spec(
            run_id="",
            flow=request.name,
            storage=storage,
            location=location,
            parameters=NONE_YET,
            environment=environment,
            route=request.route(self._scope),
            options=request.options,
            on_start=request.environment.on_start is not None,
            on_exit=request.environment.on_exit is not None,
            python=PYTHON,
            blobs=(location,) if request.storage.shared_blob else (),
            key_id=self._key_id,
            expires=expires,
            requires=request.environment.requires,
            parent=parent,
        )


def attempt_of(
    request: Request,
    run_id: str,
    number: int,
    *,
    instance: str,
    place: str = "",
    variables: Mapping[str, str],
) -> Attempt:
    """Return what a backend would be told of an attempt of such a run."""
    spec = Spec(
        run_id=run_id,
        flow=request.name,
        storage=request.storage.to_json(),
        location="",
        parameters=Value(codec="json", inline="{}"),
        environment=request.environment.to_json(),
        route=request.route(""),
        options=request.options,
    )
    return Attempt.of(spec, number, instance=instance, place=place, variables=variables)


def record(
    plan: Plan,
    parameters: Mapping[str, Any],
    *,
    keys: KeyRing,
    blobs: Blobs,
    limits: LimitSettings,
    key: str = "",
) -> Record:
    """A new run's record, its spec signed.

    Args:
        plan: what it shares with others.
        parameters: bound to the flow's signature.
        keys: sign it.
        blobs: keep large parameters.
        limits: sizes.
        key: the idempotency key; empty: none.

    Raises:
        InvalidParameters: they can't travel, or are too large.
        InvalidInput: what goes with them is too large, or too deep.
    """
    from dispatcher.serialization import to_value

    value = to_value(
        dict(parameters),
        what=f"parameters of flow {plan.spec.flow!r}",
        limit_inline=limits.inline,
        limit=limits.parameters,
        put=blobs.share,
        named_by_digest=True,
        seal=None,
        error=InvalidParameters,
        setting="DISPATCHER__LIMITS__PARAMETERS",
        each="parameter",
    )
    spec, raw = plan.made(new_id(), value)
    try:
        bounded(raw, "environment", MOST)
    except Malformed as error:
        raise InvalidInput(f"{error}: pass less with it, such as the address of a file") from None
    made = _NEW.but(
        id=spec.run_id,
        spec_bytes=raw,
        signature=keys.sign(spec.run_id, raw),
        spec_digest=digest(spec, parameters) if key else "",
        key=key,
    )
    made.__dict__["_spec"] = spec  # as Record.spec would keep it: reading 5,000 specs again takes longer than the rest
    return made


def digest(spec: Spec, parameters: Mapping[str, Any]) -> str:
    """Return one SHA-256 of all that two submits under one idempotency key must have in common.

    Sealed bytes stay outside: cloudpickle gives other bytes for the same function in another process.
    """
    if spec.parameters.codec == "json":
        given: Any = parameters
    else:
        given = {name: _plain(one) for name, one in parameters.items()}
    same = {
        "flow": spec.flow,
        "environment": _unsealed(spec.environment),
        "labels": sorted(spec.route.labels),
        "options": spec.options.to_json(),
        "parameters": given,
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def keyed(key: str | None) -> str:
    """The idempotency key as a record holds it.

    Raises:
        InvalidInput: it is no non-empty printable string, or too long.
    """
    if key is None:
        return ""
    if not isinstance(key, str) or not key or not key.isprintable() or len(key) > LONGEST_KEY:
        raise InvalidInput(f"idempotency_key: must be 1 to {LONGEST_KEY} printable characters, got {key!r}")
    return key


def bound(flow: Flow[..., Any], many: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parameters of all runs of a map, checked before anything is sent.

    Raises:
        InvalidParameters: some don't fit the signature; names the item by its index.
    """
    if isinstance(many, Mapping | str) or not isinstance(many, Iterable):
        raise InvalidParameters(f"map: needs an iterable of parameter mappings, got {type(many).__name__}")
    found = []
    function, what = cast(FunctionType, flow.fn), f"flow {flow.name!r}"
    shape = signatures.shape_of(function)
    for index, parameters in enumerate(many):
        try:
            found.append(signatures.bind(function, parameters, subject=what, shape=shape))
        except InvalidParameters as error:
            raise InvalidParameters(f"map: item {index}: {error}") from None
    return found


def _unsealed(data: Any) -> Any:
    """JSON with the kind of each sealed part in place of its bytes."""
    if isinstance(data, Mapping):
        return "sealed" if set(data) == {"sealed"} else {name: _unsealed(one) for name, one in data.items()}
    return [_unsealed(one) for one in data] if isinstance(data, list | tuple) else data


def _plain(value: Any) -> Any:
    """The value, if JSON carries it; else a word in its place."""
    try:
        json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return "sealed"
    return value
