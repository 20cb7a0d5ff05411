"""Rules of Pod Security's level ``restricted`` that a pod breaks by what it leaves out. Pure.

A namespace that enforces the level refuses such a pod after its Job was created. Only the cluster knows whether it
does: ``render`` shows what would be refused, and the doctor asks the API server. What a pod may not ask for is left to
:mod:`backends.kubernetes.job_policy`. See https://kubernetes.io/docs/concepts/security/pod-security-standards/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

_POD = "spec.template.spec"
_PROFILES = ("RuntimeDefault", "Localhost")

#: A Job that breaks these rules, by which an API server tells whether a namespace has them.
BARE_JOB: Json = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "flow-dispatcher-doctor"},
    "spec": {
        "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "flow", "image": "registry.example/flow"}]}
        }
    },
}


def restricted_violations(pod: Json) -> list[str]:
    """Return what ``restricted`` demands and a pod's spec lacks, each with its path in the Job."""
    context = pod.get("securityContext") or {}
    problems = [f"{_POD}.securityContext.runAsUser: can't be 0"] if context.get("runAsUser") == 0 else []
    for field in ("containers", "initContainers"):
        for index, container in enumerate(pod.get(field) or ()):
            path = f"{_POD}.{field}[{index}].securityContext"
            problems += _of_container(container.get("securityContext") or {}, context, path)
    return problems


def _of_container(own: Json, pod: Json, path: str) -> Iterator[str]:
    """Yield what a container lacks; its own context counts before its pod's."""
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.allowPrivilegeEscalation: must be false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{path}.capabilities.drop: must have ALL"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield f"{path}.capabilities.add: may have NET_BIND_SERVICE only"
    if not _setting("runAsNonRoot", own, pod):
        yield f"{path}.runAsNonRoot: must be true, here or in the pod's securityContext"
    if own.get("runAsUser") == 0:
        yield f"{path}.runAsUser: can't be 0"
    if (_setting("seccompProfile", own, pod) or {}).get("type") not in _PROFILES:
        yield f"{path}.seccompProfile.type: must be {' or '.join(_PROFILES)}, here or in the pod's securityContext"


def _setting(name: str, own: Json, pod: Json) -> Any:
    return own[name] if own.get(name) is not None else pod.get(name)
