"""The environment that deploys a flow as a Kubernetes Job. A value: it needs neither a cluster nor the SDK."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from backends.container import arguments
from backends.container.environment import ContainerEnvironment
from backends.kubernetes import job_bounds
from backends.kubernetes import job_spec as specs
from dispatcher.errors import InvalidInput

_POLICIES = ("Always", "IfNotPresent", "Never")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class KubernetesJobEnvironment(ContainerEnvironment):
    """Runs a flow as a Job on Kubernetes.

    The first container of a Job of your own runs the flow: its image, command and variables are set, and everything
    else is kept. The arguments after ``on_exit`` go before the same fields of that Job or container.

    Args:
        job_spec_file: a YAML file with a Job. It is read here; the Job travels inside the environment.
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow, in the container.
        on_exit: called without argument after the flow, there too, however it ended.
        job_spec: the Job as a mapping, in the place of a file.
        image: the image that runs the flow, unless the storage brings one; it must hold this package.
        image_pull_secrets: names of Secrets for private registries.
        image_pull_policy: ``Always``, ``IfNotPresent`` or ``Never``.
        namespace: where; a worker serves only those that its settings name, by default the first of them.
        resources: ``{"requests": …, "limits": …}`` of the flow's container.
        env: its variables. Not for secrets: whoever may read the Job reads them.
        secrets: its variables whose values the cluster keeps: ``{"TOKEN": "secret-name/key"}``.
        allow_unknown_fields: accept fields of the Job that this release doesn't know, for newer servers.

    Raises:
        InvalidInput: an argument is wrong, or the Job can't run a flow; names the path in the YAML and the reason.
    """

    backend: ClassVar[str] = "kubernetes"
    added: ClassVar[tuple[str, ...]] = (
        "job_spec", "image", "image_pull_secrets", "image_pull_policy", "namespace", "resources", "env", "secrets",
        "allow_unknown_fields",
    )  # fmt: skip

    job_spec_file: str | None
    image_pull_secrets: tuple[str, ...]
    image_pull_policy: str | None
    namespace: str | None
    allow_unknown_fields: bool
    _texts: Mapping[str, str]

    def __init__(  # noqa: PLR0913 - the seed's arguments, and one keyword per addition
        self,
        job_spec_file: str | os.PathLike[str] | None = None,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        job_spec: Mapping[str, Any] | None = None,
        image: str | None = None,
        image_pull_secrets: Iterable[str] | None = None,
        image_pull_policy: str | None = None,
        namespace: str | None = None,
        resources: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        allow_unknown_fields: bool = False,
    ) -> None:
        super().__init__(labels, on_start, on_exit, image=image, env=env, secrets=secrets)
        file, spec = _read(job_spec_file, job_spec, allow_unknown_fields)
        if image_pull_policy is not None and image_pull_policy not in _POLICIES:
            raise _wrong("image_pull_policy", f"must be one of {', '.join(_POLICIES)}", image_pull_policy)
        if namespace is not None and (not _is_name(namespace) or "." in namespace or len(namespace) > 63):
            raise _wrong("namespace", "must be the name of a namespace", namespace)
        if resources is not None:
            specs.check_part(resources, "V1ResourceRequirements", source=f"{type(self).__name__}.resources")
        added = {"job_spec": spec, "resources": resources}
        texts = {name: json.dumps(value) for name, value in added.items() if value}
        variables = (text for pair in (*self.env.items(), *self.secrets.items()) for text in pair)
        job_bounds.check_total([*texts.values(), *variables], source=type(self).__name__)
        self._set(
            job_spec_file=file,
            image_pull_secrets=_pull_secrets(image_pull_secrets),
            image_pull_policy=image_pull_policy,
            namespace=namespace,
            allow_unknown_fields=bool(allow_unknown_fields),
            _texts=texts,
        )

    @property
    def job_spec(self) -> dict[str, Any] | None:
        """The Job as it was given; a copy."""
        return self._copy("job_spec")

    @property
    def resources(self) -> dict[str, Any] | None:
        """Requests and limits of the flow's container; a copy."""
        return self._copy("resources")

    def check(self) -> None:
        super().check()
        if (text := self._texts.get("job_spec")) is not None:
            _check_text(text, self.allow_unknown_fields)

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
        if not _is_name(name) or not _KEY.fullmatch(key):
            problem = f"{variable} must be 'secret/key', never a value; got"
            raise _wrong("secrets", problem, arguments.masked(reference))

    @classmethod
    def _from_added(cls, data: Mapping[str, Any]) -> KubernetesJobEnvironment:
        """Return the environment that its JSON describes.

        What this release doesn't know of the Job, or refuses since then, is accepted: the submitter's release may have
        taken it. It is an error where the environment is made, and where a run is asked for (:meth:`check`).
        """
        spec = data.get("job_spec")
        environment = cls(**{**data, "job_spec": None})
        if spec is not None:
            specs.check_stored(spec, source="job_spec")
            environment._set(_texts={**environment._texts, "job_spec": json.dumps(spec)})
        return environment

    def _copy(self, name: str) -> dict[str, Any] | None:
        text = self._texts.get(name)
        value: dict[str, Any] | None = None if text is None else json.loads(text)
        return value

    def _added_json(self) -> dict[str, Any]:
        data = super()._added_json()
        if self.image_pull_secrets:
            data["image_pull_secrets"] = list(self.image_pull_secrets)
        return data


@lru_cache(maxsize=32)
def _check_text(text: str, allow_unknown: bool) -> None:
    """Check a Job once for all runs that are submitted with it."""
    specs.check(json.loads(text), source="job_spec", allow_unknown_fields=allow_unknown)


def _read(
    file: str | os.PathLike[str] | None, spec: Mapping[str, Any] | None, allow_unknown: bool
) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the file's absolute path, and the Job of the file or of the mapping."""
    if file is not None and spec is not None:
        raise _wrong("job_spec", "can't be given beside job_spec_file; got", spec)
    if file is None:
        if spec is not None:
            specs.check(spec, source="job_spec", allow_unknown_fields=allow_unknown)
        return None, spec
    if not isinstance(file, str | os.PathLike) or not os.fspath(file):
        raise _wrong("job_spec_file", "must be the path of a YAML file", file)
    path = str(Path(file).expanduser().absolute())
    job = specs.load(path)
    specs.check(job, source=f"job_spec_file {path}", allow_unknown_fields=allow_unknown)
    return path, job


def _wrong(argument: str, problem: str, value: Any) -> InvalidInput:
    return arguments.wrong(f"KubernetesJobEnvironment.{argument}", problem, value)


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _pull_secrets(names: Iterable[str] | None) -> tuple[str, ...]:
    problem = "must be a list of names of Secrets"
    if names is None:
        return ()
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise _wrong("image_pull_secrets", problem, names)
    secrets = tuple(names)
    if not all(map(_is_name, secrets)):
        raise _wrong("image_pull_secrets", problem, list(secrets))
    return secrets
