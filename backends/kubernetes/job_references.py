"""Names within a Job: each once, and none of something that isn't there. As the API server has it.

Pure. Called by :mod:`backends.kubernetes.job_spec` with Jobs whose types are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dispatcher.support.escaping import shown

#: The name of the flow's container where the user gives none.
FLOW = "flow"

_POD = "spec.template.spec"


def reference_problems(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the names in a pod's spec, each with its path in the Job."""
    volumes = list(_items(pod, "volumes"))
    yield from _repeated(((f"{_POD}.volumes[{i}].name", volume.get("name")) for i, volume in volumes), "volume")
    containers = list(_containers(pod))
    names = ((f"{path}.name", container.get("name")) for path, container in containers)
    yield from _repeated(names, "container")
    volume_names = {volume.get("name") for _, volume in volumes}
    ports: set[Any] = set()
    for path, container in containers:
        yield from _container_problems(container, path, volume_names)
        if ".containers[" in path:
            yield from _host_port_problems(container, path, ports)
    claims = {claim.get("name") for _, claim in _items(pod, "resourceClaims")}
    for path, container in containers:
        for index, claim in _items(container.get("resources") or {}, "claims"):
            if claim.get("name") not in claims:
                yield f"{path}.resources.claims[{index}].name: the pod has no such claim: {shown(claim.get('name'))}"
    yield from _init_problems(pod)


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all containers with their paths; the flow's has its default name and, in any case, an image."""
    for index, container in _items(pod, "containers"):
        named = {**container, "name": container.get("name") or FLOW, "image": "set"} if index == 0 else container
        yield f"{_POD}.containers[{index}]", named
    for index, container in _items(pod, "initContainers"):
        yield f"{_POD}.initContainers[{index}]", container


def _container_problems(container: Mapping[str, Any], path: str, volumes: set[Any]) -> Iterator[str]:
    for field in ("name", "image"):
        if not container.get(field):
            yield f"{path}.{field}: is required; only the first container has one by default"
    mounts = list(_items(container, "volumeMounts"))
    yield from _repeated(
        ((f"{path}.volumeMounts[{i}].mountPath", mount.get("mountPath")) for i, mount in mounts), "mount path"
    )
    for index, mount in mounts:
        if mount.get("name") and mount["name"] not in volumes:
            yield f"{path}.volumeMounts[{index}].name: the pod has no volume {shown(mount['name'])}"
    for index, device in _items(container, "volumeDevices"):
        if device.get("name") and device["name"] not in volumes:
            yield f"{path}.volumeDevices[{index}].name: the pod has no volume {shown(device['name'])}"
    names = ((f"{path}.ports[{i}].name", port.get("name")) for i, port in _items(container, "ports"))
    yield from _repeated(names, "port")


def _host_port_problems(container: Mapping[str, Any], path: str, taken: set[Any]) -> Iterator[str]:
    for index, port in _items(container, "ports"):
        number = port.get("hostPort")
        key = (number, port.get("protocol") or "TCP", port.get("hostIP") or "")
        if number and key in taken:
            yield f"{path}.ports[{index}].hostPort: {number} is another port's, too"
        taken.add(key)


def _init_problems(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield probes and hooks of init containers, which only side-cars (``restartPolicy: Always``) may have."""
    for index, container in _items(pod, "initContainers"):
        if container.get("restartPolicy") == "Always":
            continue
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if container.get(field) is not None:
                yield f"{_POD}.initContainers[{index}].{field}: only with restartPolicy: Always, which makes a side-car"


def _items(parent: Mapping[str, Any], field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((index, item) for index, item in enumerate(parent.get(field) or ()))


def _repeated(names: Iterable[tuple[str, Any]], noun: str) -> Iterator[str]:
    """Yield the paths of names that stand for a second time."""
    seen = set()
    for path, name in names:
        if name and name in seen:
            yield f"{path}: there is another {noun} {shown(name)}"
        seen.add(name)
