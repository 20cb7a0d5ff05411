"""The settings ``DISPATCHER__KUBERNETES__…``: which cluster a worker serves, and the pods of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from backends.container.settings import ContainerSettings
from dispatcher.runs.retry import LONGEST
from dispatcher.settings import SECRET, SettingsGroup

#: What reaches the node, or weakens what separates a container from it.
Privilege = Literal[
    "hostNetwork", "hostPID", "hostIPC", "hostPort", "privileged", "allowPrivilegeEscalation", "procMount",
    "unconfined", "seLinuxOptions", "sysctls", "probeHost", "hostProcess",
]  # fmt: skip

#: The kinds of volumes that don't reach the node: those of Pod Security's level ``restricted``, and images.
VOLUMES = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip


class ClusterSettings(SettingsGroup):
    """Settings of one Kubernetes cluster.

    Where neither is given, a worker in a pod uses the pod's own service account, and any other worker a kubeconfig.
    """

    kubeconfig: Path | None = Field(None, description="The kubeconfig file; else KUBECONFIG, else ~/.kube/config.")
    context: str | None = Field(None, description="The context in it; else its current one.")


class KubernetesSettings(ContainerSettings, title="Kubernetes"):
    """Settings of the Kubernetes cluster that a worker serves, and of the pods of its runs."""

    clusters: dict[str, ClusterSettings] = Field(
        default_factory=dict,
        description='Clusters by name (JSON: {"eu": {"kubeconfig": …, "context": …}}); none: the one that is found.',
        examples=[{"eu": {"kubeconfig": "/etc/kubeconfig", "context": "eu"}}],
        json_schema_extra=SECRET,
    )
    cluster: str = Field("", description="The cluster that this worker serves, where several are named.")
    namespaces: tuple[str, ...] = Field(
        ("default",),
        min_length=1,
        description="Namespaces served (a list); runs that name none go to the first.",
    )
    service_accounts: frozenset[str] = Field(
        frozenset(),
        description="Service accounts that runs may use (a list); none: all of the namespace.",
        examples=[["flows"]],
    )
    allowed_images: frozenset[str] = Field(
        frozenset(),
        description="Images that Jobs may use, as patterns with * (a list); none: any.",
        examples=[["registry.example/flows/*"]],
    )
    allowed_secrets: frozenset[str] = Field(
        frozenset(),
        description="Secrets that Jobs may use, as patterns with * (a list); none: any of the namespace.",
        examples=[["flows-*", "registry"]],
    )
    allowed_volumes: frozenset[str] = Field(
        VOLUMES,
        description="Kinds of volumes that Jobs may have, apart from hostPath (a list).",
        examples=[["configMap", "emptyDir", "nfs", "secret"]],
    )
    allowed_host_paths: frozenset[str] = Field(
        frozenset(),
        description="Paths of nodes that Jobs may mount, with all below them (a list).",
        examples=[["/mnt/data"]],
    )
    allowed_privileges: frozenset[Privilege] = Field(
        frozenset(),
        description="Privileges that Jobs may ask for, such as hostNetwork or privileged (a list).",
        examples=[["hostNetwork"]],
    )
    allowed_capabilities: frozenset[str] = Field(
        frozenset(),
        description="Capabilities that Jobs may add (a list).",
        examples=[["SYS_PTRACE"]],
    )
    secrets_folder: Path | None = Field(
        None,
        description="Folder with secrets of the worker, one file for each name, such as those of image registries; "
        "its variables come first.",
        examples=["/etc/dispatcher/secrets"],
    )
    no_workers_timeout: float = Field(
        300.0, gt=0, description="Seconds after which tasks fail for which a run's Dask cluster can get no worker."
    )
    ttl: float = Field(
        86400.0, ge=3600, le=LONGEST, description="Seconds that the cluster keeps a Job that nobody deleted."
    )
    request_timeout: float = Field(30.0, gt=0, description="Seconds that the API server gets to answer a request.")
    requests_per_second: float = Field(
        500.0, ge=1, description="Requests of a worker to the API server, at most; one that it refuses (429) slows all."
    )
    silence: float = Field(90.0, gt=0, description="Seconds of silence after which a watch is opened anew.")
    relist: float = Field(300.0, gt=0, description="Seconds between two complete lists beside the watches.")
