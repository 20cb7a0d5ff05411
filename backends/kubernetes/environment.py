"""The environment that deploys a flow as a Kubernetes Job. A value: it needs neither a cluster nor the SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from backends.kubernetes import job_spec as specs
from backends.kubernetes import spec_files
from backends.kubernetes.pod_environment import PodEnvironment


class KubernetesJobEnvironment(PodEnvironment):
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
        file, spec = spec_files.read(
            "job_spec",
            job_spec_file,
            job_spec,
            subject=type(self).__name__,
            check=lambda job, source: specs.check(job, source=source, allow_unknown_fields=allow_unknown_fields),
        )
        self._check_resources("resources", resources)
        super().__init__(
            labels,
            on_start,
            on_exit,
            image=image,
            image_pull_secrets=image_pull_secrets,
            image_pull_policy=image_pull_policy,
            namespace=namespace,
            env=env,
            secrets=secrets,
            allow_unknown_fields=allow_unknown_fields,
            parts={"job_spec": spec, "resources": resources},
        )
        self._set(job_spec_file=file)

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


@lru_cache(maxsize=32)
def _check_text(text: str, allow_unknown: bool) -> None:
    """Check a Job once for all runs that are submitted with it."""
    specs.check(json.loads(text), source="job_spec", allow_unknown_fields=allow_unknown)
