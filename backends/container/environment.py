"""The base class of environments whose flows run in containers. A value: it needs neither a service nor an SDK."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from backends.container import arguments
from dispatcher.environments.base import Environment, parameters_and_env
from dispatcher.errors import InvalidInput
from dispatcher.support.escaping import article

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage


class StorageOutOfReach(InvalidInput, TypeError):
    """A storage that a container can't reach; a TypeError, as the seed's."""


class ContainerEnvironment(Environment):
    """Runs a flow in a container.

    Args:
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow, in the container.
        on_exit: called without argument after the flow, there too, however it ended.
        image: the image that runs the flow, unless the storage brings one; it must hold this package.
        env: variables of the container. Not for secrets: whoever may read the request reads them.
        secrets: variables whose values the service keeps: variable → reference.

    Raises:
        InvalidInput: an argument is wrong; names it.
    """

    added: ClassVar[tuple[str, ...]] = ("image", "env", "secrets")

    image: str | None
    _env: Mapping[str, str]
    _secrets: Mapping[str, str]

    def __init__(
        self,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        image: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        name = type(self).__name__
        arguments.check_image(image, argument=f"{name}.image")
        variables = arguments.check_variables(env, argument=f"{name}.env")
        references = arguments.check_variables(secrets, argument=f"{name}.secrets")
        for variable, reference in references.items():
            self.check_reference(variable, reference)
        arguments.check_distinct(variables, references, argument=f"{name}.secrets")
        self.image = image
        self._set(_env=variables, _secrets=references)

    @property
    def env(self) -> dict[str, str]:
        """Variables of the flow's container; a copy."""
        return dict(self._env)

    @property
    def secrets(self) -> dict[str, str]:
        """References to the values that the service keeps, by variable; a copy."""
        return dict(self._secrets)

    def check_storage(self, storage: Storage) -> None:
        """Check that a container gets flows from this storage.

        Raises:
            TypeError: it can't reach this one.
            InvalidInput: both storage and environment name an image.
        """
        name = type(self).__name__
        if not getattr(storage, "in_containers", False):
            raise StorageOutOfReach(
                f"{name} runs flows in a container, which can't reach "
                f"{article(type(storage).__name__)}: use "
                "RedisStorage (the code travels with the run), ModuleStorage (it is installed in the image) or "
                "DockerStorage (the image is made of it)"
            )
        stored = storage.image
        if stored and self.image:
            problem = f"can't be given beside a storage that brings its own ({stored}); got"
            raise arguments.wrong(f"{name}.image", problem, self.image)

    def setup(self, storage: Storage) -> None:
        """Check the storage. Nothing static is needed."""
        self.check_storage(storage)
        storage.check()

    def execute(self, storage: Storage, flow_location: str, **kwargs: Any) -> dict[str, Any]:
        """Create a container that runs the flow, without queue or record: nothing watches it.

        Args:
            storage: where the flow's code is.
            flow_location: its address there.
            kwargs: ``parameters`` (a mapping of JSON values) and ``env`` (variables of the container).

        Returns:
            The handle: JSON that names what was created.

        Raises:
            TypeError: the container couldn't reach the storage; or any other keyword.
            InvalidInput: what was asked for can't be done, or the service refuses it.
        """
        parameters, variables = parameters_and_env(type(self).__name__, kwargs)
        env = arguments.check_variables(variables, argument=f"{type(self).__name__}.execute: env")
        self.setup(storage)
        from backends.container.direct_execution import DirectExecution, create

        execution = DirectExecution(storage=storage.to_json(), location=flow_location, parameters=parameters, env=env)
        return create(self, execution)

    def run_flow(self) -> Any:
        """Run the flow for which this container was started by :meth:`execute`: ``on_start``, the flow with the
        default executor, and always ``on_exit``. Returns the flow's result.

        Raises:
            InvalidSettings: this process isn't such a container.
            Exception: what the flow raised.
        """
        from dispatcher.runner.direct import opened

        with opened(os.environ) as job:
            return super().execute(job.storage, job.location, parameters=job.parameters)

    def check_reference(self, variable: str, reference: str) -> None:
        """Check what stands for a secret's value. Its form is the service's.

        Raises:
            InvalidInput: it is no reference; doesn't show it.
        """

    def _added_json(self) -> dict[str, Any]:
        return {name: value for name in self.added if (value := getattr(self, name))}
