"""The environment that runs a flow with a temporary Dask cluster on Kubernetes. A value: it needs neither a cluster nor
an SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from backends.container.arguments import masked
from backends.container.secret_sources import REGISTRY_CREDENTIALS, is_secret_name
from backends.dask_kubernetes import worker_spec as worker_specs
from backends.kubernetes import job_spec as specs
from backends.kubernetes import spec_files
from backends.kubernetes.pod_environment import PodEnvironment
from dispatcher.environments.cluster import ClusterSpec
from dispatcher.errors import InvalidInput
from dispatcher.support.escaping import escaped

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage

#: The variable by which Dask is told whether idle workers take tasks from busy ones.
_WORK_STEALING = "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING"

#: The backend of runs whose clusters are the Dask operator's.
_OPERATOR = "dask-operator"

#: Most workers of one run.
_MAX_WORKERS = 5000


class DaskKubernetesEnvironment(PodEnvironment):
    """Runs a flow in a Job on Kubernetes, and its tasks on a temporary Dask cluster.

    The Job's pod runs the flow and the scheduler. Each worker is a pod of its own, whose threads and memory are the
    limits of its container, else its requests. Workers are added and removed between ``min_workers`` and
    ``max_workers`` as the tasks need them, and end with the run.

    The first container of a Job or Pod of your own runs the flow, or the worker: its image, command and some variables
    are set, and everything else is kept. The arguments after ``worker_spec_file`` go before the same fields of them.

    Args:
        min_workers: workers that the flow waits for, and that are kept; 0 or more.
        max_workers: most workers at a time; 1 or more.
        work_stealing: whether idle workers take tasks from busy ones. A variable of the scheduler's own goes before.
        scheduler_logs: whether the scheduler's own log is in the run's; else only its warnings are.
        private_registry: whether the image is in a registry with a password. Then :meth:`setup` creates the Secret.
        docker_secret: the name of the secret with that registry's credentials, where ``private_registry`` is True;
            default: ``DOCKER_REGISTRY_CREDENTIALS``.
        labels: only a dispatcher's worker that serves all of them takes the run.
        on_start: called without argument before the flow, in its container.
        on_exit: called without argument after the flow, there too, however it ended.
        scheduler_spec_file: a YAML file with the Job of flow and scheduler. It is read here, and travels inside.
        worker_spec_file: a YAML file with the Pod of a worker. Options of ``dask worker`` in its arguments are kept.
        scheduler_spec: the Job as a mapping, in the place of a file.
        worker_spec: the Pod as a mapping, in the place of a file.
        worker_resources: ``{"requests": …, "limits": …}`` of a worker's container.
        resources: the same of the flow's container, which holds the scheduler too.
        image: the image of flow and workers, unless the storage brings one; it must hold this package and Dask.
        image_pull_secrets: names of Secrets for private registries.
        image_pull_policy: ``Always``, ``IfNotPresent`` or ``Never``.
        namespace: where; a dispatcher's worker serves only those that its settings name, by default the first of them.
        env: variables of flow and workers. Not for secrets: whoever may read pods reads them.
        secrets: their variables whose values the cluster keeps: ``{"TOKEN": "secret-name/key"}``.
        allow_unknown_fields: accept fields of Job and Pod that this release doesn't know, for newer servers.
        operator: have the Dask operator run the scheduler and the workers, without TLS. It must run on the cluster; the
            dispatcher's worker serves the backend ``dask-operator``. ``worker_spec`` is the scheduler's, too.

    Raises:
        InvalidInput: an argument is wrong, or Job or Pod can't be used; names the path in the YAML and the reason.
    """

    backend: ClassVar[str] = "dask-kubernetes"
    added: ClassVar[tuple[str, ...]] = (
        "min_workers", "max_workers", "work_stealing", "scheduler_logs", "private_registry", "docker_secret",
        "scheduler_spec", "worker_spec", "worker_resources", "resources", "image", "image_pull_secrets",
        "image_pull_policy", "namespace", "env", "secrets", "allow_unknown_fields", "operator",
    )  # fmt: skip

    min_workers: int
    max_workers: int
    work_stealing: bool
    scheduler_logs: bool
    private_registry: bool
    docker_secret: str | None
    scheduler_spec_file: str | None
    worker_spec_file: str | None
    operator: bool

    def __init__(  # noqa: PLR0913, PLR0917 - the seed's arguments, and one keyword per addition
        self,
        min_workers: int = 1,
        max_workers: int = 2,
        work_stealing: bool = False,
        scheduler_logs: bool = False,
        private_registry: bool = False,
        docker_secret: str | None = None,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        scheduler_spec_file: str | os.PathLike[str] | None = None,
        worker_spec_file: str | os.PathLike[str] | None = None,
        *,
        scheduler_spec: Mapping[str, Any] | None = None,
        worker_spec: Mapping[str, Any] | None = None,
        worker_resources: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        image: str | None = None,
        image_pull_secrets: Iterable[str] | None = None,
        image_pull_policy: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        allow_unknown_fields: bool = False,
        operator: bool = False,
    ) -> None:
        self._check_numbers(min_workers, max_workers)
        switches = self._switches(
            work_stealing=work_stealing, scheduler_logs=scheduler_logs, private_registry=private_registry,
            operator=operator,
        )  # fmt: skip
        job, job_file = self._read("scheduler_spec", scheduler_spec_file, scheduler_spec, allow_unknown_fields)
        pod, pod_file = self._read("worker_spec", worker_spec_file, worker_spec, allow_unknown_fields)
        self._check_resources("resources", resources)
        self._check_resources("worker_resources", worker_resources)
        super().__init__(
            labels, on_start, on_exit,
            image=image,
            image_pull_secrets=image_pull_secrets,
            image_pull_policy=image_pull_policy,
            namespace=namespace,
            env=env,
            secrets=secrets,
            allow_unknown_fields=allow_unknown_fields,
            parts={
                "scheduler_spec": job, "worker_spec": pod, "worker_resources": worker_resources, "resources": resources,
            },
        )  # fmt: skip
        self._check_namespaces()
        self._set(
            min_workers=min_workers,
            max_workers=max_workers,
            docker_secret=self._docker_secret(docker_secret, private_registry),
            scheduler_spec_file=job_file,
            worker_spec_file=pod_file,
            **switches,
        )

    @property
    def scheduler_spec(self) -> dict[str, Any] | None:
        """The Job as it was given; a copy."""
        return self._copy("scheduler_spec")

    @property
    def worker_spec(self) -> dict[str, Any] | None:
        """The Pod of a worker as it was given; a copy."""
        return self._copy("worker_spec")

    @property
    def worker_resources(self) -> dict[str, Any] | None:
        """Requests and limits of a worker's container; a copy."""
        return self._copy("worker_resources")

    @property
    def resources(self) -> dict[str, Any] | None:
        """Requests and limits of the flow's container; a copy."""
        return self._copy("resources")

    def cluster(self) -> ClusterSpec:
        return ClusterSpec(
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            work_stealing=None if self._sets_work_stealing() else self.work_stealing,
            scheduler_logs=self.scheduler_logs,
            has_operator=self.operator,
        )

    def setup(self, storage: Storage) -> None:
        """Check the storage. With ``private_registry``, create the Secret of its credentials, unless it exists.

        The credentials are those of this process: a variable or a file named by ``docker_secret``. A worker does the
        same with its own before the first run.

        Raises:
            TypeError: a container couldn't reach the storage.
            InvalidInput: the credentials are missing, or the cluster refuses the Secret.
            ServerUnavailable: the cluster can't be reached.
        """
        super().setup(storage)
        if self.private_registry:
            from backends.container.direct_execution import set_up

            set_up(self, storage.to_json())

    def check(self) -> None:
        super().check()
        for name in _CHECKS:
            if (text := self._texts.get(name)) is not None:
                _check_text(name, text, self.allow_unknown_fields)
        self._check_namespaces()

    @classmethod
    def _from_added(cls, data: Mapping[str, Any]) -> DaskKubernetesEnvironment:
        """Return the environment that its JSON describes. What this release doesn't know of Job and Pod, or refuses
        since then, is accepted here, as for ``KubernetesJobEnvironment``."""
        checks = {"scheduler_spec": specs.check_stored, "worker_spec": worker_specs.check_stored}
        environment = cls(**{**data, **dict.fromkeys(checks)})
        texts = dict(environment._texts)
        for name, check in checks.items():
            if (spec := data.get(name)) is not None:
                check(spec, source=name)
                texts[name] = json.dumps(spec)
        environment._set(_texts=texts)
        return environment

    def _added_json(self) -> dict[str, Any]:
        return {**super()._added_json(), "min_workers": self.min_workers, "max_workers": self.max_workers}

    def _read(
        self, name: str, file: str | os.PathLike[str] | None, spec: Mapping[str, Any] | None, allow_unknown: bool
    ) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return the Job or Pod of an argument, checked, and the file that it comes from."""
        path, manifest = spec_files.read(
            name,
            file,
            spec,
            subject=type(self).__name__,
            kind="Job" if name == "scheduler_spec" else "Pod",
            check=lambda value, source: _CHECKS[name](value, source=source, allow_unknown_fields=allow_unknown),
        )
        return manifest, path

    def _check_numbers(self, least: Any, most: Any) -> None:
        for argument, number in (("min_workers", least), ("max_workers", most)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise self._wrong(argument, "must be a whole number, 0 or more", number)
        if most < 1:
            raise self._wrong("max_workers", "must be 1 or more, so that tasks can be computed", most)
        if most > _MAX_WORKERS:
            raise self._wrong("max_workers", f"must be at most {_MAX_WORKERS}", most)
        if least > most:
            raise self._wrong("min_workers", f"must be at most max_workers ({most})", least)

    def _switches(self, **switches: Any) -> dict[str, Any]:
        """Return the arguments that are True or False, checked, and the backend of runs for the operator."""
        for argument, value in switches.items():
            if not isinstance(value, bool):
                raise self._wrong(argument, "must be True or False", value)
        if not switches["operator"]:
            return switches
        if switches["scheduler_logs"]:
            problem = "can't be given with operator=True: the log is in the scheduler's pod; leave it out"
            raise self._wrong("scheduler_logs", problem, True)
        return {**switches, "backend": _OPERATOR}

    def _docker_secret(self, name: Any, private_registry: bool) -> str | None:
        """Return the name of the secret with the registry's credentials; as in the seed, None without a private one."""
        if name is not None and not is_secret_name(name):
            raise self._wrong(
                "docker_secret", "must be the name of a variable or a file, not a value", masked(str(name))
            )
        return (name or REGISTRY_CREDENTIALS) if private_registry else None

    def _check_namespaces(self) -> None:
        """Check that Job and Pod don't name different namespaces."""
        own = specs.at(self.worker_spec, "metadata.namespace")
        jobs = self.namespace or specs.at(self.scheduler_spec, "metadata.namespace")
        if own and jobs and own != jobs:
            problem = f"metadata.namespace: {own}: workers are in the namespace of their Job, {jobs}; remove it"
            raise InvalidInput(f"{type(self).__name__}.worker_spec: {escaped(problem)}")

    def _sets_work_stealing(self) -> bool:
        """Return True if a variable of the flow's container tells Dask whether to steal."""
        containers = specs.at(self.scheduler_spec, "spec.template.spec.containers") or [{}]
        names = [entry.get("name") for entry in containers[0].get("env") or ()]
        return any(str(name).upper() == _WORK_STEALING for name in (*names, *self.env, *self.secrets))


def _check_job(job: Any, *, source: str, allow_unknown_fields: bool) -> None:
    """Check the Job of flow and scheduler: as a Job of a flow, and that the certificate's place is free."""
    specs.check(job, source=source, allow_unknown_fields=allow_unknown_fields)
    if problems := list(specs.reserved_problems(job["spec"]["template"]["spec"], worker_specs.RESERVED_MOUNTS)):
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))


#: Checks of a user's own manifests, by argument.
_CHECKS: Mapping[str, Callable[..., None]] = {"scheduler_spec": _check_job, "worker_spec": worker_specs.check}


@lru_cache(maxsize=32)
def _check_text(name: str, text: str, allow_unknown: bool) -> None:
    """Check a Job or Pod once for all runs that are submitted with it."""
    _CHECKS[name](json.loads(text), source=name, allow_unknown_fields=allow_unknown)
