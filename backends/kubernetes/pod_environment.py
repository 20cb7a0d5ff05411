"""The base class of environments whose flows run in a Job's pod. A value: it needs neither a cluster nor the SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from backends.container import arguments
from backends.container.environment import ContainerEnvironment
from backends.kubernetes import job_bounds
from backends.kubernetes import job_spec as specs
from dispatcher.errors import InvalidInput

_POLICIES = ("Always", "IfNotPresent", "Never")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class PodEnvironment(ContainerEnvironment):
    """Runs a flow in the pod of a Job.

    Args:
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow, in the container.
        on_exit: called without argument after the flow, there too, however it ended.
        image: the image that runs the flow, unless the storage brings one; it must hold this package.
        image_pull_secrets: names of Secrets for private registries.
        image_pull_policy: ``Always``, ``IfNotPresent`` or ``Never``.
        namespace: where; a worker serves only those that its settings name, by default the first of them.
        env: variables of the container. Not for secrets: whoever may read the Job reads them.
        secrets: variables whose values the cluster keeps: ``{"TOKEN": "secret-name/key"}``.
        allow_unknown_fields: accept fields of manifests that this release doesn't know, for newer servers.
        parts: manifests, or parts of them, by argument; they are checked by the caller, and left out if empty.

    Raises:
        InvalidInput: an argument is wrong; names it.
    """

    added: ClassVar[tuple[str, ...]] = (
        "image", "image_pull_secrets", "image_pull_policy", "namespace", "env", "secrets", "allow_unknown_fields",
    )  # fmt: skip

    image_pull_secrets: tuple[str, ...]
    image_pull_policy: str | None
    namespace: str | None
    allow_unknown_fields: bool
    _texts: Mapping[str, str]

    def __init__(  # noqa: PLR0913 - one keyword per argument that subclasses share
        self,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        image: str | None = None,
        image_pull_secrets: Iterable[str] | None = None,
        image_pull_policy: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        allow_unknown_fields: bool = False,
        parts: Mapping[str, Mapping[str, Any] | None],
    ) -> None:
        super().__init__(labels, on_start, on_exit, image=image, env=env, secrets=secrets)
        if image_pull_policy is not None and image_pull_policy not in _POLICIES:
            raise self._wrong("image_pull_policy", f"must be one of {', '.join(_POLICIES)}", image_pull_policy)
        if namespace is not None and (not is_name(namespace) or "." in namespace or len(namespace) > 63):
            raise self._wrong("namespace", "must be the name of a namespace", namespace)
        texts = {name: json.dumps(value) for name, value in parts.items() if value}
        variables = (text for pair in (*self.env.items(), *self.secrets.items()) for text in pair)
        job_bounds.check_total([*texts.values(), *variables], source=type(self).__name__)
        self._set(
            image_pull_secrets=self._names(image_pull_secrets),
            image_pull_policy=image_pull_policy,
            namespace=namespace,
            allow_unknown_fields=bool(allow_unknown_fields),
            _texts=texts,
        )

    def create_flow_run_job(self, docker_name: str, flow_file_path: str) -> dict[str, Any]:
        """Create a Job that runs the flow in a file of an image.

        Args:
            docker_name: the image, ``registry/name:tag``.
            flow_file_path: the file in it, as ``LocalStorage`` writes them.

        Returns:
            The handle of the Job.
        """
        from backends.container.direct_execution import DirectExecution, create

        return create(self, DirectExecution(location=flow_file_path, image=docker_name))

    def check_reference(self, variable: str, reference: str) -> None:
        name, _, key = reference.partition("/")
        if not is_name(name) or not _KEY.fullmatch(key):
            problem = f"{variable} must be 'secret/key', never a value; got"
            raise self._wrong("secrets", problem, arguments.masked(reference))

    @classmethod
    def _check_resources(cls, argument: str, resources: Any) -> None:
        if resources is not None:
            specs.check_part(resources, "V1ResourceRequirements", source=f"{cls.__name__}.{argument}")

    @classmethod
    def _wrong(cls, argument: str, problem: str, value: Any) -> InvalidInput:
        return arguments.wrong(f"{cls.__name__}.{argument}", problem, value)

    def _copy(self, name: str) -> dict[str, Any] | None:
        """Return a copy of a part; None if it wasn't given."""
        text = self._texts.get(name)
        value: dict[str, Any] | None = None if text is None else json.loads(text)
        return value

    def _added_json(self) -> dict[str, Any]:
        data = super()._added_json()
        if self.image_pull_secrets:
            data["image_pull_secrets"] = list(self.image_pull_secrets)
        return data

    def _names(self, names: Iterable[str] | None) -> tuple[str, ...]:
        problem = "must be a list of names of Secrets"
        if names is None:
            return ()
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise self._wrong("image_pull_secrets", problem, names)
        secrets = tuple(names)
        if not all(map(is_name, secrets)):
            raise self._wrong("image_pull_secrets", problem, list(secrets))
        return secrets


def is_name(text: Any) -> bool:
    """Return True if this may be the name of an object of the cluster."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None
