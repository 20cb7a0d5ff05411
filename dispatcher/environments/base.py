"""The base class of environments: values that say where and how a flow runs, with its callbacks.

An environment is immutable, compares by value and round-trips through JSON. Workers read that JSON without running
users' code: a callback is imported or opened only when it is called.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from dispatcher.environments import callbacks
from dispatcher.environments.labels import Labels
from dispatcher.errors import INTERRUPTS, CancelInterrupt, InvalidInput, PreemptInterrupt, TimeoutInterrupt
from dispatcher.executors.local import LocalExecutor
from dispatcher.runs.context import ended, entered
from dispatcher.runs.routing import check_labels
from dispatcher.runs.states import State
from dispatcher.serialization.unopened import open_result
from dispatcher.support import signatures
from dispatcher.support.escaping import shown

if TYPE_CHECKING:
    from dispatcher.executors.base import Executor
    from dispatcher.flows.flow import Flow
    from dispatcher.storage.base import Storage

logger = logging.getLogger("dispatcher.environment")

_MOMENTS = ("on_start", "on_exit")


class Environment:
    """An execution environment: where and how a flow runs.

    Args:
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow, where the flow runs.
        on_exit: called without argument after the flow, there too, however it ended: see ``context.state``
            and ``context.exception``.

    Raises:
        InvalidInput: a label isn't a non-empty string, or a callback can't be called without arguments.
    """

    #: The backend of its runs: the first part of their queue's name.
    backend: ClassVar[str]

    #: Fields that a subclass adds; each is an argument of its constructor, an attribute that this sets once, and a JSON
    #: value.
    added: ClassVar[tuple[str, ...]] = ()

    labels: Labels
    on_start: Callable[[], Any] | None
    on_exit: Callable[[], Any] | None

    def __init__(
        self,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
    ) -> None:
        by_moment = {"on_start": on_start, "on_exit": on_exit}
        for moment, callback in by_moment.items():
            if callback is not None:
                signatures.check_callback(callback, subject=f"{type(self).__name__}.{moment}")
        self._set(labels=Labels(check_labels(labels)), **by_moment)

    def setup(self, storage: Storage) -> None:
        """Create static infrastructure, if the class needs any; safe to repeat."""

    def execute(self, storage: Storage, flow_location: str, **kwargs: Any) -> Any:
        """Run a flow here and now, without queue, Redis or record: ``on_start``, the flow, and always ``on_exit``.

        Args:
            storage: where the flow's code is.
            flow_location: its address there.
            kwargs: ``parameters`` (a mapping) and ``env`` (variables, set while it runs).

        Returns:
            The flow's result. One of a container that isn't JSON is opened here, which can run code of the flow's, as
            ``Run.result`` can.

        Raises:
            TypeError: any other keyword.
            InvalidInput: the result would have to be opened, and ``DISPATCHER__RESULTS__PLAIN`` refuses that.
            Exception: what the flow, or ``on_start``, raised; else what ``on_exit`` raised.
        """
        parameters, env = parameters_and_env(type(self).__name__, kwargs)
        inside = entered(run_id=None, attempt=None, flow=None, labels=self.labels, parameters=parameters)
        failed: BaseException | None = None
        result = None
        with variables(env), inside:
            try:
                if self.on_start is not None:
                    self.on_start()
                result = open_result(lambda: self.load(storage, flow_location, env=env)(parameters))
            except BaseException as error:
                failed = error
            if failed is not None:  # not above: on_exit must find no exception being handled
                ended(_state_after(failed), failed)
                self._exit_after_failure()
                raise failed
            ended(State.SUCCEEDED)
            if self.on_exit is not None:
                self.on_exit()
            return result

    def load(
        self, storage: Storage, flow_location: str, *, env: Mapping[str, str] | None = None
    ) -> Callable[[Mapping[str, Any]], Any]:
        """Return a function that runs the flow with this environment's executor and returns its result.

        Callbacks are left to the caller.

        Raises:
            InvalidInput: flow or executor isn't available here; names it.
            Permanent: the flow's code can't be opened here.
        """
        return self._runner(storage.get_flow(flow_location), env)

    def check(self) -> None:
        """Check what can be checked before a run is submitted.

        Raises:
            InvalidInput: runs of it can't work; says why.
        """
        from dispatcher import registry

        registry.ENVIRONMENTS.check(self, type(self).__name__)

    def check_storage(self, storage: Storage) -> None:
        """Check before a run is submitted that the flow can be loaded from ``storage`` where it runs.

        Raises:
            TypeError: it can't be loaded from there; names the storages that work.
            InvalidInput: it could be, but not as storage and environment are configured.
        """

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :func:`from_json` reads.

        Raises:
            InvalidInput: a callback can't travel.
        """
        data = {"type": type(self).__name__, "labels": list(self.labels), **self._added_json()}
        for moment in _MOMENTS:
            if (callback := getattr(self, moment)) is not None:
                subject = f"{type(self).__name__}.{moment}"
                data[moment] = callbacks.Callback.of(callback, subject=subject).to_json()
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Environment:
        """See :func:`from_json`."""
        return from_json(data)

    def make_executor(self) -> Executor:
        """Return a new executor for one run: by default one that computes tasks in the flow's own thread."""
        return LocalExecutor()

    @property
    def requires(self) -> tuple[str, ...]:
        """Names of the features that a worker must know to run this as it is meant; other workers leave the run."""
        return ()

    def _added_json(self) -> dict[str, Any]:
        """Return the JSON of the fields that a subclass adds; fields that aren't set are left out."""
        return {name: value for name in self.added if (value := getattr(self, name)) is not None}

    @classmethod
    def _from_added(cls, data: Mapping[str, Any]) -> Environment:
        """Return the environment with the arguments that its JSON names."""
        return cls(**data)

    def _runner(self, flow: Flow[..., Any], env: Mapping[str, str] | None) -> Callable[[Mapping[str, Any]], Any]:
        executor = self.make_executor()

        def run(parameters: Mapping[str, Any]) -> Any:
            with variables(env or {}):
                return flow.run(parameters, executor)

        return run

    def _exit_after_failure(self) -> None:
        """Call ``on_exit`` and log what it raises: the caller raises the flow's own exception."""
        try:
            if self.on_exit is not None:
                self.on_exit()
        except INTERRUPTS:
            raise
        except BaseException:  # whatever it raises
            logger.exception("on_exit raised, after the flow had failed")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        fields = (field for kind in type(self).__mro__ for field in vars(kind).get("added", ()))
        if name not in vars(self) and name in fields:  # by the constructor of the class that adds it
            return object.__setattr__(self, name, value)
        raise AttributeError(f"{type(self).__name__} can't be changed ({name}): make another one")

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            """Raise the error of an attribute that doesn't exist, with what takes its place if Prefect 0.10 had it."""
            from dispatcher.support.prefect_names import attribute_remedy

            remedy = attribute_remedy(name)
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(f"{message}: {remedy}" if remedy else message, name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} can't be changed ({name}): make another one")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = ("labels", *self.added, *_MOMENTS)
        return all(callbacks.same(getattr(self, name), getattr(other, name)) for name in names)

    def __hash__(self) -> int:
        return hash((type(self), self.labels))

    def __repr__(self) -> str:
        fields = {name: value for name in self.added if (value := getattr(self, name)) not in (None, {}, (), False)}
        shown = [f"{name}={value!r}" for name, value in fields.items()]
        if self.labels:
            shown.append(f"labels={list(self.labels)!r}")
        for moment in _MOMENTS:
            if (callback := getattr(self, moment)) is not None:
                shown.append(f"{moment}={signatures.shown_name(callback)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def from_json(data: Mapping[str, Any], *, stored: bool = False) -> Environment:
    """Return the environment that :meth:`Environment.to_json` described. Imports its class, but no callback.

    Sealed code in it isn't opened here, but by a worker once a run of it was submitted, and so signed. Call
    :func:`dispatcher.environments.callbacks.sealed_in` first on JSON that others wrote.

    Args:
        data: the JSON object.
        stored: True if it is part of a spec, which another release may have written: unknown fields are ignored then.
            Else they are an error.

    Raises:
        InvalidInput: it describes no environment; says what is wrong.
    """
    from dispatcher import registry

    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise InvalidInput(
            f"an environment is a JSON object with a 'type' such as 'LocalEnvironment', got {shown(data)}"
        )
    kind = registry.environment(data["type"])
    fields = {name: value for name, value in data.items() if name != "type" and value is not None}
    allowed = ("labels", *_MOMENTS, *kind.added)
    unknown = [name for name in fields if name not in allowed]
    if stored:
        fields = {name: value for name, value in fields.items() if name in allowed}
    elif unknown:
        raise InvalidInput(f"{data['type']}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(allowed)}")
    for moment in _MOMENTS:
        if moment in fields:
            fields[moment] = callbacks.Callback.from_json(fields[moment], subject=f"{data['type']}.{moment}")
    return kind._from_added(fields)


@contextlib.contextmanager
def variables(env: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process, and restore their former values."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def parameters_and_env(subject: str, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the keywords of ``execute``, checked. ``subject`` is the environment's name in errors."""
    unknown = sorted(set(kwargs) - {"parameters", "env"})
    if unknown:
        raise TypeError(f"{subject}.execute() got unknown {', '.join(unknown)}; known: parameters, env")
    parameters = signatures.bind_names(kwargs.get("parameters"), subject=f"{subject}.execute")
    env = kwargs.get("env") or {}
    if not isinstance(env, Mapping) or not all(isinstance(part, str) for item in env.items() for part in item):
        raise InvalidInput(f"{subject}.execute: env must map names to strings")
    return parameters, dict(env)


def _state_after(error: BaseException) -> State:
    match error:
        case TimeoutInterrupt():
            return State.TIMED_OUT
        case CancelInterrupt() | KeyboardInterrupt():
            return State.CANCELLED
        case PreemptInterrupt():
            return State.CRASHED
        case _:
            return State.FAILED
