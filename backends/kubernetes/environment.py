"""The environment that deploys a flow as a Kubernetes Job. A value: it needs neither a cluster nor the SDK."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backends.kubernetes import job_spec as specs
from dispatcher.environments.base import Environment, parameters_and_env
from dispatcher.errors import InvalidInput
from dispatcher.executors.local import LocalExecutor
from dispatcher.support.escaping import article

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage

_POLICIES = ("Always", "IfNotPresent", "Never")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_JSON = ("job_spec", "resources", "env", "secrets")


class StorageOutOfReach(InvalidInput, TypeError):
    """A storage that a container can't reach; a TypeError, as the seed's."""


class KubernetesJobEnvironment(Environment):
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
    image: str | None
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
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        file, spec = _read(job_spec_file, job_spec, allow_unknown_fields)
        if image is not None and (not isinstance(image, str) or not image or any(map(str.isspace, image))):
            raise _wrong("image", "must be an image's name", image)
        if image_pull_policy is not None and image_pull_policy not in _POLICIES:
            raise _wrong("image_pull_policy", f"must be one of {', '.join(_POLICIES)}", image_pull_policy)
        if namespace is not None and (not _is_name(namespace) or "." in namespace or len(namespace) > 63):
            raise _wrong("namespace", "must be the name of a namespace", namespace)
        if resources is not None:
            specs.check_part(resources, "V1ResourceRequirements", source=f"{type(self).__name__}.resources")
        variables, references = _variables(env), _references(secrets)
        if both := sorted(set(variables) & set(references)):
            raise _wrong("secrets", "names variables that env sets too", both)
        texts = {"job_spec": spec, "resources": resources, "env": variables, "secrets": references}
        self._set(
            job_spec_file=file,
            image=image,
            image_pull_secrets=_pull_secrets(image_pull_secrets),
            image_pull_policy=image_pull_policy,
            namespace=namespace,
            allow_unknown_fields=bool(allow_unknown_fields),
            _texts={name: json.dumps(value) for name, value in texts.items() if value},
        )

    @property
    def job_spec(self) -> dict[str, Any] | None:
        """The Job as it was given; a copy."""
        found: dict[str, Any] | None = self._given("job_spec")
        return found

    @property
    def resources(self) -> dict[str, Any] | None:
        """Requests and limits of the flow's container; a copy."""
        found: dict[str, Any] | None = self._given("resources")
        return found

    @property
    def env(self) -> dict[str, str]:
        """Variables of the flow's container; a copy."""
        return self._given("env") or {}

    @property
    def secrets(self) -> dict[str, str]:
        """Variables whose values the cluster keeps, as ``secret/key``; a copy."""
        return self._given("secrets") or {}

    def check(self) -> None:
        super().check()
        if (spec := self.job_spec) is not None:
            specs.check(spec, source="job_spec", allow_unknown_fields=self.allow_unknown_fields)

    def check_storage(self, storage: Storage) -> None:
        """A container can't reach every storage.

        Raises:
            TypeError: it can't reach this one.
            InvalidInput: both storage and environment name an image.
        """
        if not getattr(storage, "in_containers", False):
            raise StorageOutOfReach(
                f"{type(self).__name__} runs flows in a container, which can't reach "
                f"{article(type(storage).__name__)}: use "
                "RedisStorage (the code travels by value), ModuleStorage (it is installed in the image) or "
                "DockerStorage (the image is made of it)"
            )
        stored = storage.image
        if stored and self.image:
            raise _wrong("image", f"can't be given beside a storage that brings its own ({stored}); got", self.image)

    def setup(self, storage: Storage) -> None:
        """Nothing static is needed; checks the storage."""
        self.check_storage(storage)
        storage.check()

    def execute(self, storage: Storage, flow_location: str, **kwargs: Any) -> dict[str, Any]:
        """Create a Job that runs the flow, without queue or record: nothing watches it.

        Args:
            storage: where the flow's code is.
            flow_location: its address there.
            kwargs: ``parameters`` (a mapping of JSON values) and ``env`` (variables of the container).

        Returns:
            The handle of the Job: cluster, namespace, name and UID.

        Raises:
            TypeError: the container couldn't reach the storage; or any other keyword.
            InvalidInput: what was asked for can't be done, or the cluster refuses it.
        """
        parameters, env = parameters_and_env(type(self).__name__, kwargs)
        self.check_storage(storage)
        storage.check()
        from backends.kubernetes import direct

        job = direct.Asked(storage=storage.to_json(), location=flow_location, parameters=parameters, env=env)
        return direct.create(self, job)

    def create_flow_run_job(self, docker_name: str, flow_file_path: str) -> dict[str, Any]:
        """Create a Job that runs the flow in a file of an image.

        Args:
            docker_name: the image, ``registry/name:tag``.
            flow_file_path: the file in it, as ``LocalStorage`` writes them.

        Returns:
            The handle of the Job.
        """
        from backends.kubernetes import direct

        return direct.create(self, direct.Asked(location=flow_file_path, image=docker_name))

    def run_flow(self) -> Any:
        """Run the flow for which this container was started by :meth:`execute` or :meth:`create_flow_run_job`:
        ``on_start``, the flow with the default executor, and always ``on_exit``; the flow's result.

        Raises:
            InvalidSettings: this process isn't such a container.
            Exception: what the flow raised.
        """
        from dispatcher.runner.direct import opened

        with opened(os.environ) as job:
            return super().execute(job.storage, job.location, parameters=job.parameters)

    def _executor(self) -> LocalExecutor:
        return LocalExecutor()

    @classmethod
    def _from_added(cls, data: Mapping[str, Any]) -> KubernetesJobEnvironment:
        """Make the environment from JSON; an older release may not know a field that the submitter's knew: unknown
        fields are an error where it is made, and where a run is asked for (:meth:`check`)."""
        made = cls(**{**data, "allow_unknown_fields": True})
        made._set(allow_unknown_fields=bool(data.get("allow_unknown_fields")))
        return made

    def _given(self, name: str) -> Any:
        text = self._texts.get(name)
        return None if text is None else json.loads(text)

    def _added_json(self) -> dict[str, Any]:
        data = {name: value for name in self.added if (value := getattr(self, name))}
        if self.image_pull_secrets:
            data["image_pull_secrets"] = list(self.image_pull_secrets)
        return data


def _read(
    file: str | os.PathLike[str] | None, spec: Mapping[str, Any] | None, allow_unknown: bool
) -> tuple[str | None, Mapping[str, Any] | None]:
    """The file's absolute path, and the Job of it or of the mapping."""
    if file is not None and spec is not None:
        raise _wrong("job_spec", "can't be given beside job_spec_file; got", spec)
    if file is None:
        if spec is not None:
            specs.check(spec, source="job_spec", allow_unknown_fields=allow_unknown)
        return None, spec
    if not isinstance(file, str | os.PathLike) or not os.fspath(file):
        raise _wrong("job_spec_file", "must be the path of a YAML file", file)
    path = str(Path(file).expanduser().absolute())
    found = specs.load(path)
    specs.check(found, source=f"job_spec_file {path}", allow_unknown_fields=allow_unknown)
    return path, found


def _wrong(name: str, what: str, value: Any) -> InvalidInput:
    got = "" if what.endswith("got") else ", got"
    return InvalidInput(f"KubernetesJobEnvironment.{name}: {what}{got} {value!r}")


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _pull_secrets(names: Iterable[str] | None) -> tuple[str, ...]:
    what = "must be a list of names of Secrets"
    if names is None:
        return ()
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise _wrong("image_pull_secrets", what, names)
    found = tuple(names)
    if not all(map(_is_name, found)):
        raise _wrong("image_pull_secrets", what, list(found))
    return found


def _variables(env: Any, *, what: str = "env") -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise _wrong(what, "must map variables to strings", env)
    for name, value in env.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise _wrong(what, "must map variables to strings; no variable can be called so", name)
        if name.startswith("DISPATCHER__RUN__"):
            raise _wrong(what, "can't set the runner's own variables", name)
        if not isinstance(value, str):
            raise _wrong(what, f"must map variables to strings; {name} is", value)
    return dict(env)


def _references(secrets: Any) -> dict[str, str]:
    found = _variables(secrets, what="secrets")
    for variable, reference in found.items():
        name, _, key = reference.partition("/")
        if not _is_name(name) or not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key):
            raise _wrong("secrets", f"{variable} must be 'secret/key', never a value; got", _hidden(reference))
    return found


def _hidden(text: str) -> str:
    """Show a value that was given in the place of a reference without its content: it may be the secret itself."""
    return f"{text[:2]}… ({len(text)} characters)"
