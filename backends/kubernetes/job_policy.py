"""Policy of a worker for Jobs: images, Secrets, service accounts, volumes, and what reaches the node.

A submitter may write any Job, but a worker creates it with the worker's own rights. So the worker's settings say what
may be in it; by default not more than Pod Security's level ``baseline``, and no added capability. Pure: called by
:mod:`backends.kubernetes.manifest` with the Job as it would be sent, for ``prepare``, ``submit`` and ``render``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from backends.kubernetes import job_spec as specs
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.support.escaping import escaped, shown

_POD = "spec.template.spec"
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")

#: Secrets with runners' credentials, or with a Dask cluster's key, named like the Jobs of attempts. Each is for the
#: containers of its own attempt.
_RUNNER_SECRET = re.compile(r"flow-[0-9a-z]{1,26}-([0-9a-f]{8}-[0-9]+|direct|doctor)(-tls)?")

#: Secrets of image registries that workers make of their own credentials: for pulling images, and nothing else.
PULL_SECRET = re.compile(r"flow-dispatcher-pull-[0-9a-f]{20}")

#: What SELinux options may be without a privilege, as in Pod Security's ``baseline``.
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})

#: Sysctls that are a pod's own, as in Pod Security's ``baseline``.
_SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
})  # fmt: skip


@dataclass(frozen=True)
class JobPolicy:
    """Allowance for the Jobs of a worker. Images and Secrets are patterns, where ``*`` stands for any text.

    ``images``, ``secrets`` and ``service_accounts``: empty means any. ``own_image`` is the worker's default image,
    and ``own_pull_secret`` the Secret that it makes for a registry; they are always allowed.
    """

    images: Sequence[str]
    own_image: str
    own_pull_secret: str
    secrets: Sequence[str]
    service_accounts: frozenset[str]
    volumes: frozenset[str]
    host_paths: Sequence[str]
    privileges: Set[str]
    capabilities: frozenset[str]

    @classmethod
    def of(cls, settings: KubernetesSettings, own_image: str, own_pull_secret: str = "") -> JobPolicy:
        """Return the policy that settings describe."""
        return cls(
            images=sorted(settings.allowed_images),
            own_image=own_image,
            own_pull_secret=own_pull_secret,
            secrets=sorted(settings.allowed_secrets),
            service_accounts=settings.service_accounts,
            volumes=settings.allowed_volumes,
            host_paths=sorted(settings.allowed_host_paths),
            privileges=settings.allowed_privileges,
            capabilities=frozenset(map(_capability, settings.allowed_capabilities)),
        )


def refusals(job: Mapping[str, Any], policy: JobPolicy) -> list[str]:
    """Return what a policy refuses in a Job: for each, its path, value, and the setting that allows it.

    Args:
        job: as it would be sent. The volumes that this backend adds are left out.
        policy: the worker's.
    """
    pod = specs.at(job, _POD) or {}
    problems = [
        *_accounts(pod, policy),
        *_pod_privileges(pod, policy),
        *_annotation_privileges(specs.at(job, "spec.template.metadata.annotations") or {}, policy),
        *_pull_secrets(pod, policy),
    ]
    for field in _CONTAINERS:
        for path, container in _items(pod, field, _POD):
            problems += _container(path, container, policy)
    for path, volume in _items(pod, "volumes", _POD):
        if volume.get("name") not in specs.OWN_VOLUMES:
            problems += _volume(path, volume, policy)
    return [escaped(problem) for problem in problems]


def pod_refusals(pod: Mapping[str, Any], policy: JobPolicy) -> list[str]:
    """Return what a policy refuses in a Pod of its own, with paths in that Pod; see :func:`refusals`."""
    return [problem.removeprefix("spec.template.") for problem in refusals({"spec": {"template": pod}}, policy)]


def _accounts(pod: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    """Yield service accounts that a pod may not use. Without a name it is ``default``, if the pod gets its token."""
    if not policy.service_accounts:
        return
    named = {field: pod[field] for field in ("serviceAccountName", "serviceAccount") if pod.get(field)}
    for field, account in (named or dict.fromkeys(_tokens(pod), "default")).items():
        if account not in policy.service_accounts:
            allowed = ", ".join(sorted(policy.service_accounts))
            yield _refused(f"{_POD}.{field}", f"service account {account}", "SERVICE_ACCOUNTS", f"allows {allowed}")


def _tokens(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths within a pod that give it its service account's token; it gets one unless it says otherwise."""
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken"
    for path, volume in _items(pod, "volumes", ""):
        for inner, source in _items(volume.get("projected") or {}, "sources", f"{path}.projected"):
            for kind in ("serviceAccountToken", "podCertificate"):  # the latter is an identity of that account, too
                if source.get(kind) is not None:
                    yield f"{inner}.{kind}"


def _pull_secrets(pod: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    """Yield Secrets with which images of a pod may not be pulled."""
    for path, reference in _items(pod, "imagePullSecrets", _POD):
        name = str(reference.get("name"))
        if PULL_SECRET.fullmatch(name) is None:
            yield from _named_secret(path, reference, policy)
        elif policy.secrets and name != policy.own_pull_secret:
            yield from _unnamed(f"{path}.name", name, policy)


def _pod_privileges(pod: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield from _privilege(f"{_POD}.{field}", field, policy)
    context = pod.get("securityContext") or {}
    path = f"{_POD}.securityContext"
    for inner, sysctl in _items(context, "sysctls", path):
        if sysctl.get("name") not in _SAFE_SYSCTLS:
            yield from _privilege(f"{inner}.name", "sysctls", policy, sysctl.get("name"))
    yield from _context(path, context, policy)


def _annotation_privileges(annotations: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    """Yield AppArmor profiles in annotations, as Kubernetes before 1.30 had them; newer servers still read them."""
    for name, value in annotations.items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and value == "unconfined":
            yield from _privilege(f"spec.template.metadata.annotations.{name}", "unconfined", policy)


def _container(path: str, container: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    yield from _image(f"{path}.image", container.get("image"), policy)
    for inner, entry in _items(container, "env", path):
        reference = (entry.get("valueFrom") or {}).get("secretKeyRef") or {}
        yield from _named_secret(f"{inner}.valueFrom.secretKeyRef", reference, policy)
    for inner, source in _items(container, "envFrom", path):
        yield from _named_secret(f"{inner}.secretRef", source.get("secretRef") or {}, policy)
    for inner, port in _items(container, "ports", path):
        if port.get("hostPort"):
            yield from _privilege(f"{inner}.hostPort", "hostPort", policy, port["hostPort"])
    yield from _hosts(path, container, policy)
    context = container.get("securityContext") or {}
    for field in ("privileged", "allowPrivilegeEscalation"):
        if context.get(field):
            yield from _privilege(f"{path}.securityContext.{field}", field, policy)
    for capability in (context.get("capabilities") or {}).get("add") or ():
        if _capability(capability) not in policy.capabilities:
            place = f"{path}.securityContext.capabilities.add"
            yield _refused(place, shown(capability), "ALLOWED_CAPABILITIES", "doesn't name it")
    if context.get("procMount") not in (None, "", "Default"):
        yield from _privilege(f"{path}.securityContext.procMount", "procMount", policy, context["procMount"])
    yield from _context(f"{path}.securityContext", context, policy)


def _hosts(path: str, container: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    """Yield hosts of probes and hooks: the node would connect to them, instead of to the pod."""
    hooks = container.get("lifecycle") or {}
    handlers = {f"lifecycle.{field}": hooks.get(field) for field in ("postStart", "preStop")}
    handlers |= {field: container.get(field) for field in ("livenessProbe", "readinessProbe", "startupProbe")}
    for field, handler in handlers.items():
        for action in ("httpGet", "tcpSocket"):
            host = ((handler or {}).get(action) or {}).get("host")
            if host:
                yield from _privilege(f"{path}.{field}.{action}.host", "probeHost", policy, host)


def _context(path: str, context: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    """Yield the privileges in a security context of a pod or a container."""
    for field in ("seccompProfile", "appArmorProfile"):
        if (context.get(field) or {}).get("type") == "Unconfined":
            yield from _privilege(f"{path}.{field}.type", "unconfined", policy, "Unconfined")
    options = context.get("seLinuxOptions") or {}
    if options.get("user") or options.get("role") or options.get("type", "") not in _SELINUX_TYPES:
        yield from _privilege(f"{path}.seLinuxOptions", "seLinuxOptions", policy)
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield from _privilege(f"{path}.windowsOptions.hostProcess", "hostProcess", policy)


def _volume(path: str, volume: Mapping[str, Any], policy: JobPolicy) -> Iterator[str]:
    for kind, source in volume.items():
        if kind == "name" or source is None:
            continue
        if kind == "hostPath":
            yield from _host_path(f"{path}.hostPath.path", source.get("path"), policy)
        elif kind not in policy.volumes:
            allowed = ", ".join(sorted(policy.volumes))
            yield _refused(f"{path}.{kind}", "this kind of volume", "ALLOWED_VOLUMES", f"allows {allowed}")
        yield from _named_secret(f"{path}.{kind}", source, policy, field="secretName")
        for reference in ("secretRef", "nodePublishSecretRef"):
            yield from _named_secret(f"{path}.{kind}.{reference}", source.get(reference) or {}, policy)
    yield from _image(f"{path}.image.reference", (volume.get("image") or {}).get("reference"), policy)
    for inner, source in _items(volume.get("projected") or {}, "sources", f"{path}.projected"):
        yield from _named_secret(f"{inner}.secret", source.get("secret") or {}, policy)


def _host_path(path: str, value: Any, policy: JobPolicy) -> Iterator[str]:
    """Yield a path of the node that isn't one of those allowed, or below one."""
    place = posixpath.normpath(f"/{value}").replace("//", "/")
    for allowed in policy.host_paths:
        root = posixpath.normpath(f"/{allowed}").replace("//", "/")
        if place == root or place.startswith(f"{root.rstrip('/')}/"):
            return
    yield _refused(path, shown(value), "ALLOWED_HOST_PATHS", "allows " + (", ".join(policy.host_paths) or "none"))


def _image(path: str, image: Any, policy: JobPolicy) -> Iterator[str]:
    if not image or not policy.images or image == policy.own_image:
        return
    if not any(fnmatchcase(str(image), pattern) for pattern in policy.images):
        yield _refused(path, f"image {image}", "ALLOWED_IMAGES", f"allows {', '.join(policy.images)}")


def _named_secret(path: str, reference: Mapping[str, Any], policy: JobPolicy, *, field: str = "name") -> Iterator[str]:
    name = reference.get(field)
    if not name:
        return
    if _RUNNER_SECRET.fullmatch(str(name)):
        yield f"{path}.{field}: Secret {name} holds the credentials of a run's own container: nothing else may read it"
    elif PULL_SECRET.fullmatch(str(name)):
        yield f"{path}.{field}: Secret {name} holds a worker's credentials of a registry: a pod may only pull with it"
    elif policy.secrets:
        yield from _unnamed(f"{path}.{field}", str(name), policy)


def _unnamed(path: str, name: str, policy: JobPolicy) -> Iterator[str]:
    """Yield a Secret that no pattern allows."""
    if not any(fnmatchcase(name, pattern) for pattern in policy.secrets):
        yield _refused(path, f"Secret {name}", "ALLOWED_SECRETS", f"allows {', '.join(policy.secrets)}")


def _privilege(path: str, name: str, policy: JobPolicy, value: Any = True) -> Iterator[str]:
    if name not in policy.privileges:
        yield _refused(path, shown(value), "ALLOWED_PRIVILEGES", f"doesn't name {name}")


def _refused(path: str, subject: str, setting: str, why: str) -> str:
    return f"{path}: {subject} isn't allowed: DISPATCHER__KUBERNETES__{setting} {why}"


def _capability(name: str) -> str:
    return str(name).upper().removeprefix("CAP_")


def _items(parent: Mapping[str, Any], field: str, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the items of a list with their paths."""
    prefix = f"{path}." if path else ""
    for index, item in enumerate(parent.get(field) or ()):
        yield f"{prefix}{field}[{index}]", item
