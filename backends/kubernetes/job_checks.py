"""Rules of the API server between the values of one mapping. Called by :mod:`backends.kubernetes.job_rules`."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from backends.kubernetes import job_forms as forms
from dispatcher.support.escaping import shown
from dispatcher.support.variables import value_problem


def _check_port(value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Check the port of a probe, a number or the name of a container's port."""
    port = value.get("port")
    if isinstance(port, bool) or not isinstance(port, int | str | None):
        yield f"{path}.port: must be a port's number or name, got {shown(port)}"
    elif isinstance(port, int) and not 1 <= port <= 65535:
        yield f"{path}.port: must be from 1 to 65535, got {port}"
    elif isinstance(port, str) and port and not forms.fits(port, forms.PORT_NAME):
        yield f"{path}.port: must be {forms.PORT_NAME[2]}, got {shown(port)}"


def _check_toleration(value: Mapping[str, Any], path: str) -> Iterator[str]:
    operator, key = value.get("operator", "Equal"), value.get("key")
    if key and not forms.is_qualified(key):
        yield f"{path}.key: must be {forms.QUALIFIED[2]}, got {shown(key)}"
    if not key and operator != "Exists":
        yield f"{path}.operator: must be Exists where key is empty, got {shown(operator)}"
    if operator == "Exists" and value.get("value"):
        yield f"{path}.value: must be empty where operator is Exists, got {shown(value['value'])}"
    if "tolerationSeconds" in value and value.get("effect") != "NoExecute":
        yield f"{path}.effect: must be NoExecute where tolerationSeconds is set, got {shown(value.get('effect'))}"


def _check_resources(value: Mapping[str, Any], path: str) -> Iterator[str]:
    limits, requests = value.get("limits") or {}, value.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for resource, amount in amounts.items():
            place = f"{path}.{field}.{resource}"
            if not forms.is_qualified(resource) or ("/" not in resource and not _is_standard(resource)):
                yield f"{place}: must be cpu, memory, ephemeral-storage, hugepages-SIZE or a name like example.org/name"
            elif _is_extended(resource) and (number := forms.amount_of(amount)) is not None and number % 1:
                yield f"{place}: must be a whole number, got {shown(amount)}"
            elif _is_bytes(resource):
                yield from (f"{place}: {problem}" for problem in forms.size_problems(amount))
    for resource, request in requests.items():
        wanted = forms.amount_of(request)
        limit = forms.amount_of(limits[resource] or 0) if resource in limits else None
        place = f"{path}.requests.{resource}"
        if wanted is None:
            continue
        if limit is None and not _may_exceed(resource):
            yield f"{place}: needs the same limit, since it can't be shared"
        elif limit is not None and (wanted > limit or (wanted != limit and not _may_exceed(resource))):
            relation = "more than" if wanted > limit else "another amount than"
            yield f"{place}: is {relation} the limit of {shown(limits[resource])}: {shown(request)}"


def _is_standard(resource: str) -> bool:
    return resource in {"cpu", "memory", "ephemeral-storage"} or resource.startswith("hugepages-")


def _is_bytes(resource: str) -> bool:
    return _is_standard(resource) and resource != "cpu"


def _is_extended(resource: str) -> bool:
    return "/" in resource and not resource.partition("/")[0].endswith("kubernetes.io")


def _may_exceed(resource: str) -> bool:
    """Return True if a node may promise more of a resource than it has."""
    return not _is_extended(resource) and not resource.startswith("hugepages-")


def _check_volume(value: Mapping[str, Any], path: str) -> Iterator[str]:
    sources = [name for name in value if name != "name"]
    if len(sources) > 1:
        yield f"{path}: can't have both {' and '.join(sources)}: a volume has one source"


def _check_security(value: Mapping[str, Any], path: str) -> Iterator[str]:
    if value.get("allowPrivilegeEscalation") is False:
        added = (value.get("capabilities") or {}).get("add") or ()
        if value.get("privileged") or "CAP_SYS_ADMIN" in added:
            yield f"{path}.allowPrivilegeEscalation: can't be false with privileged or CAP_SYS_ADMIN"


def _check_seccomp(value: Mapping[str, Any], path: str) -> Iterator[str]:
    has_profile = bool(value.get("localhostProfile"))
    if has_profile != (value.get("type") == "Localhost"):
        yield f"{path}.localhostProfile: must be set with the type Localhost, and only then"


def _check_selector(value: Mapping[str, Any], path: str) -> Iterator[str]:
    operator, values = value.get("operator"), value.get("values") or []
    if operator in {"In", "NotIn"} and not values:
        yield f"{path}.values: needs a value where operator is {operator}"
    if operator in {"Exists", "DoesNotExist"} and values:
        yield f"{path}.values: must be empty where operator is {operator}"
    if operator in {"Gt", "Lt"} and len(values) != 1:
        yield f"{path}.values: must have one value where operator is {operator}"


def _check_host_alias(value: Mapping[str, Any], path: str) -> Iterator[str]:
    try:
        ipaddress.ip_address(value.get("ip") or "::")
    except ValueError:
        yield f"{path}.ip: must be an IP address, got {shown(value['ip'])}"


def _check_readiness_gate(value: Mapping[str, Any], path: str) -> Iterator[str]:
    condition = value.get("conditionType")
    if condition and not forms.is_qualified(condition):
        yield f"{path}.conditionType: must be {forms.QUALIFIED[2]}, got {shown(condition)}"


def _check_empty_dir(value: Mapping[str, Any], path: str) -> Iterator[str]:
    limit = value.get("sizeLimit")
    problems = [*forms.amount_problems(limit)] or forms.size_problems(limit)
    yield from (f"{path}.sizeLimit: {problem}" for problem in problems)


def _check_divisor(value: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.divisor: {problem}" for problem in forms.amount_problems(value.get("divisor")))


def _check_container(value: Mapping[str, Any], path: str) -> Iterator[str]:
    for probe in ("livenessProbe", "startupProbe"):
        if (value.get(probe) or {}).get("successThreshold") not in (None, 0, 1):
            yield f"{path}.{probe}.successThreshold: must be 1"
    if (value.get("readinessProbe") or {}).get("terminationGracePeriodSeconds") is not None:
        yield f"{path}.readinessProbe.terminationGracePeriodSeconds: can't be set for this probe"
    privileged = (value.get("securityContext") or {}).get("privileged")
    for index, mount in enumerate(value.get("volumeMounts") or ()):
        if mount.get("mountPropagation") == "Bidirectional" and not privileged:
            yield f"{path}.volumeMounts[{index}].mountPropagation: Bidirectional needs a privileged container"
        if mount.get("recursiveReadOnly") not in (None, "", "Disabled") and not mount.get("readOnly"):
            yield f"{path}.volumeMounts[{index}].recursiveReadOnly: needs readOnly: true"


def _check_variable(value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Check what a node would find out only when it starts the container."""
    name, text = value.get("name"), value.get("value")
    if isinstance(name, str) and isinstance(text, str) and (problem := value_problem(name, text)):
        yield f"{path}.value: {problem}"


def _check_pod(value: Mapping[str, Any], path: str) -> Iterator[str]:
    if value.get("ephemeralContainers"):
        yield f"{path}.ephemeralContainers: can't be given: only a pod that exists can get them"
    if value.get("hostPID") and value.get("shareProcessNamespace"):
        yield f"{path}.shareProcessNamespace: can't be with hostPID"
    if value.get("runtimeClassName") == "":
        yield f"{path}.runtimeClassName: can't be empty: remove it"
    if value.get("dnsPolicy") == "None" and not (value.get("dnsConfig") or {}).get("nameservers"):
        yield f"{path}.dnsConfig: needs nameservers where dnsPolicy is None"
    groups = (value.get("securityContext") or {}).get("supplementalGroups") or ()
    if any(not 0 <= group < 2**31 for group in groups):
        yield f"{path}.securityContext.supplementalGroups: must be from 0 to {2**31 - 1}, got {shown(groups)}"
    if value.get("hostUsers") is not False:
        for field in ("containers", "initContainers"):
            for index, container in enumerate(value.get(field) or ()):
                if (container.get("securityContext") or {}).get("procMount") == "Unmasked":
                    yield f"{path}.{field}[{index}].securityContext.procMount: Unmasked needs hostUsers: false"


#: The checks by model.
CHECKS: Mapping[str, Callable[[Mapping[str, Any], str], Iterator[str]]] = {
    "V1Container": _check_container,
    "V1EmptyDirVolumeSource": _check_empty_dir,
    "V1EnvVar": _check_variable,
    "V1HostAlias": _check_host_alias,
    "V1HTTPGetAction": _check_port,
    "V1LabelSelectorRequirement": _check_selector,
    "V1NodeSelectorRequirement": _check_selector,
    "V1PodReadinessGate": _check_readiness_gate,
    "V1PodSpec": _check_pod,
    "V1ResourceFieldSelector": _check_divisor,
    "V1ResourceRequirements": _check_resources,
    "V1SeccompProfile": _check_seccomp,
    "V1SecurityContext": _check_security,
    "V1TCPSocketAction": _check_port,
    "V1Toleration": _check_toleration,
    "V1Volume": _check_volume,
}
