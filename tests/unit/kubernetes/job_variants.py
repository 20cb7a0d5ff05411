"""Variants of good Jobs, most of them wrong in one place: what a server says of each is what we say.

``tests/cloud/test_kubernetes_validation.py`` asks a server, ``test_job_rules.py`` asks us.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.unit.kubernetes.jobs import CUSTOM

Json = dict[str, Any]

#: A good Job that uses much of what a pod can have.
RICH: Json = copy.deepcopy(CUSTOM)
RICH["metadata"].pop("namespace")
RICH["spec"]["template"]["spec"].update({
    "serviceAccountName": "default",
    "securityContext": {"runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "nodeSelector": {"disk": "ssd"},
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "files", "secret": {"secretName": "files", "items": [{"key": "a", "path": "b/c"}]}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "both", "projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}]}},
    ],
})  # fmt: skip
_POD = RICH["spec"]["template"]["spec"]
_POD["containers"][0]["env"] += [
    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
]
_POD["containers"][1].update({
    "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
    "envFrom": [{"secretRef": {"name": "s"}}],
    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
    "readinessProbe": {"tcpSocket": {"port": 80}},
    "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    "volumeMounts": [{"name": "files", "mountPath": "/files", "subPath": "b"}],
})  # fmt: skip
_POD["initContainers"].append({"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"})

_FLOW = "spec.template.spec.containers.0"
_SIDE = "spec.template.spec.containers.1"
_INIT = "spec.template.spec.initContainers.0"
_TEMPLATE = "spec.template"
_SPEC = "spec.template.spec"

NAMES = ("", "A", "a_b", "-a", "a-", "a.b", "ä", "a" * 64, "a" * 63, "ok")
LABELS = ("", "é", "a b", "-a", "a.b_c-d", "A1", "x" * 63, "x" * 64, "a/b")
QUANTITIES = (
    "2 cores", "2Gb", "1e3", "1.5", ".5", "5.", "+1", "-1", "", "1Ki", "1ki", "0x10", "100m", "1 Gi", "1E", "1e", "inf",
    1, 0.5, -1,
)  # fmt: skip

#: Values by place: one variant for each.
CHANGES: dict[str, tuple[Any, ...]] = {
    "metadata.labels.x": LABELS,
    "metadata.annotations.x": ("", "é", "any text\n"),
    "metadata.labels": ({"é": "1"}, {"a/b": "1"}, {"A/b": "1"}, {"a/b/c": "1"}, {"-": "1"}, {"": "1"}),
    "metadata.annotations": ({"é": "1"}, {"A.B/c": "1"}, {"a b": "1"}, {"a/" + "b" * 64: "1"}),
    "metadata.finalizers": (["foregroundDeletion"], ["example.org/f"]),
    "metadata.ownerReferences": ([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}], [{"kind": "A"}]),
    "spec.activeDeadlineSeconds": (0, 1, -1, 2**31, 2**33),
    "spec.ttlSecondsAfterFinished": (0, 5000),
    f"{_TEMPLATE}.metadata.labels.x": LABELS,
    f"{_SPEC}.terminationGracePeriodSeconds": (0, 1, 86400, 2**33),
    f"{_SPEC}.activeDeadlineSeconds": (0, 1, -1, 2**31 - 1, 2**31, 2**33),
    f"{_SPEC}.nodeSelector": ({"a": "b"}, {"a": "ü"}, {"a b": "c"}, {"kubernetes.io/hostname": "n"}),
    f"{_SPEC}.serviceAccountName": ("a", "A", "a.b", "a_b"),
    f"{_SPEC}.priorityClassName": ("a b", "Foo"),
    f"{_SPEC}.runtimeClassName": ("", "a_b"),
    f"{_SPEC}.schedulerName": ("s", "S"),
    f"{_SPEC}.nodeName": ("n1", "N 1"),
    f"{_SPEC}.hostname": ("h", "H", "a.b"),
    f"{_SPEC}.subdomain": ("h", "a.b"),
    f"{_SPEC}.dnsPolicy": ("Default", "default", "None"),
    f"{_SPEC}.preemptionPolicy": ("Never", "never"),
    f"{_SPEC}.os": ({"name": "linux"}, {"name": "plan9"}),
    f"{_SPEC}.tolerations": (
        [{}], [{"operator": "Exists"}], [{"key": "a"}], [{"key": "a", "operator": "exists"}],
        [{"key": "a", "operator": "Exists", "value": "b"}],
        [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 5}],
        [{"key": "a", "tolerationSeconds": 5}], [{"key": "a", "effect": "Never"}],
        [{"key": "a b", "operator": "Exists"}],
        [{"key": "a", "operator": "Equal", "value": "x"}], [{"key": "a", "operator": "Equal", "value": "x y"}],
    ),
    f"{_SPEC}.securityContext.runAsUser": (0, -1, 2**31 - 1, 2**31, 2**32),
    f"{_SPEC}.securityContext.fsGroup": (0, -1),
    f"{_SPEC}.securityContext.fsGroupChangePolicy": ("Always", "always"),
    f"{_SPEC}.securityContext.supplementalGroups": ([1], [-1]),
    f"{_SPEC}.securityContext.seccompProfile": (
        {}, {"type": "RuntimeDefault"}, {"type": "runtime/default"}, {"type": "Localhost"}, {"type": "Unconfined"},
        {"type": "Localhost", "localhostProfile": "p.json"},
    ),
    f"{_SPEC}.securityContext.sysctls": (
        [{"name": "net.ipv4.ip_local_port_range", "value": "1 2"}], [{"name": ""}], [{"name": "a b", "value": ""}],
    ),
    f"{_SPEC}.shareProcessNamespace": (True, False),
    f"{_SPEC}.hostAliases": ([{"ip": "1.2.3.4", "hostnames": ["a.b"]}], [{"hostnames": ["a"]}], [{"ip": "a"}]),
    f"{_SPEC}.affinity": (
        {}, {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        _node_affinity := {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}}},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}]}}},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In"}]}]}}},
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}]}}},
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}},
        {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
        {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}},
    ),
    f"{_SPEC}.topologySpreadConstraints": (
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "no"}],
        [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    ),
    f"{_SPEC}.schedulingGates": ([{"name": "a"}], [{"name": "example.org/a"}], [{"name": ""}]),
    f"{_SPEC}.readinessGates": ([{"conditionType": "a"}], [{"conditionType": "a b"}]),
    f"{_SPEC}.ephemeralContainers": ([], [{"name": "debug", "image": "busybox"}]),
    f"{_SPEC}.overhead": ({}, {"cpu": "1m"}),
    f"{_SPEC}.imagePullSecrets": ([], [{}], [{"name": "a"}, {"name": "a"}]),
    f"{_SPEC}.volumes.0.name": NAMES,
    f"{_SPEC}.volumes.0.emptyDir": (
        {}, {"medium": "Memory"}, {"sizeLimit": "1 GB"}, {"sizeLimit": "-1"}, {"sizeLimit": 5},
    ),
    f"{_SPEC}.volumes.1.secret": (
        {}, {"secretName": "a"}, {"secretName": "a", "defaultMode": 0o777}, {"secretName": "a", "defaultMode": 0o1000},
        {"secretName": "a", "items": [{"key": "k"}]}, {"secretName": "a", "items": [{"key": "k", "path": "../x"}]},
        {"secretName": "a", "items": [{"key": "k", "path": "/x"}]}, {"secretName": "a", "items": [{"path": "x"}]},
        {"secretName": "a", "items": [{"key": "a b", "path": "x"}]}, {"secretName": "a", "items": []},
        {"secretName": "a", "items": [{"key": "k", "path": "x/../y"}]}, {"secretName": "a", "defaultMode": -1},
        {"secretName": "a", "items": [{"key": "k", "path": "..x"}]}, {"secretName": "A_b"},
    ),
    f"{_SPEC}.volumes.2.configMap": ({}, {"name": "a"}, {"name": "a", "defaultMode": 2**9}),
    f"{_SPEC}.volumes.3.persistentVolumeClaim": ({}, {"claimName": "a"}, {"claimName": "A"}),
    f"{_SPEC}.volumes.4.projected": (
        {}, {"sources": []}, {"sources": [{}]}, {"sources": [{"secret": {"name": "s"}, "configMap": {"name": "c"}}]},
        {"sources": [{"serviceAccountToken": {"path": "t"}}]}, {"sources": [{"serviceAccountToken": {}}]},
        {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}]},
        {"sources": [{"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]},
        {"sources": [{"downwardAPI": {"items": [{"path": "l"}]}}]},
    ),
    f"{_SPEC}.volumes.0": (
        {"name": "data"}, {"name": "data", "emptyDir": {}, "configMap": {"name": "a"}},
        {"name": "data", "hostPath": {"path": "/a"}}, {"name": "data", "hostPath": {"path": "/a/../b"}},
        {"name": "data", "hostPath": {}}, {"name": "data", "hostPath": {"path": "/a", "type": "Dir"}},
        {"name": "data", "hostPath": {"path": "/a", "type": "Directory"}},
        {"name": "data", "nfs": {"server": "a", "path": "/"}}, {"name": "data", "nfs": {"server": "a"}},
        {"name": "data", "csi": {"driver": "a.b"}}, {"name": "data", "csi": {}}, {"name": "data", "ephemeral": {}},
        {"name": "data", "image": {"reference": "a:1"}}, {"name": "files"},
        {"name": "data", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ),
    f"{_FLOW}.name": (*NAMES[1:], "side-car", "mesh", "prepare", None),
    f"{_FLOW}.env": (
        [], [{"name": "A"}], [{"name": "A", "value": ""}], [{"value": "a"}], [{"name": "", "value": "a"}],
        [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], [{"name": "a b", "value": "1"}],
        [{"name": "a=b", "value": "1"}], [{"name": "1a", "value": "1"}], [{"name": "é", "value": "1"}],
        [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        [{"name": "A", "value": "", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        [{"name": "A", "valueFrom": {}}], [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nam"}}}],
        [{"name": "A", "valueFrom": {"fieldRef": {}}}], [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
        [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "s"}}}],
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "S_", "key": "k"}}}],
        [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a b"}}}],
        [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
        [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "cpu"}}}],
        [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2 m"}}}],
        [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}],
        [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}, "fieldRef": {"fieldPath": "a"}}}],
    ),
    f"{_SIDE}.envFrom": (
        [{}], [{"prefix": "A_"}], [{"secretRef": {}}], [{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}],
        [{"configMapRef": {"name": "b"}, "prefix": "a b"}], [{"configMapRef": {"name": "b"}, "prefix": "a="}],
    ),
    f"{_FLOW}.volumeMounts": (
        [], [{"name": "nothing", "mountPath": "/a"}], [{"name": "data"}], [{"mountPath": "/a"}],
        [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}],
        [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a/"}],
        [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}],
        [{"name": "data", "mountPath": "a"}], [{"name": "data", "mountPath": "/a:b"}],
        [{"name": "data", "mountPath": "/a", "subPath": "../x"}],
        [{"name": "data", "mountPath": "/a", "subPath": "/x"}],
        [{"name": "data", "mountPath": "/a", "subPath": "x", "subPathExpr": "y"}],
        [{"name": "data", "mountPath": "/a", "subPathExpr": "$(A)"}],
        [{"name": "data", "mountPath": "/a", "mountPropagation": "none"}],
        [{"name": "data", "mountPath": "/a", "mountPropagation": "HostToContainer"}],
        [{"name": "data", "mountPath": "/a", "mountPropagation": "Bidirectional"}],
        [{"name": "data", "mountPath": "/a", "recursiveReadOnly": "Enabled"}],
    ),
    f"{_FLOW}.volumeDevices": ([{"name": "claim", "devicePath": "/d"}], [{"name": "x", "devicePath": "/d"}]),
    f"{_FLOW}.resources.limits.cpu": QUANTITIES,
    f"{_FLOW}.resources.requests": (
        {"cpu": "3"}, {"cpu": "2000m"}, {"cpu": "2001m"}, {"memory": "1Gi"}, {"gpu": "1"}, {"a b": "1"}, {"cpu": "x"},
        {"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 2}, {"nvidia.com/gpu": "500m"}, {"example.org/x": 1},
        {"ephemeral-storage": "1Gi"}, {"storage": "1Gi"}, {"hugepages-2Mi": "2Mi"},
    ),
    f"{_FLOW}.resources.limits": (
        {"nvidia.com/gpu": "1.5"}, {"nvidia.com/gpu": 1}, {"memory": "1G"}, {"hugepages-2Mi": "2Mi"}, {"cpu": "1m"},
    ),
    f"{_FLOW}.resources.claims": ([{"name": "c"}],),
    f"{_FLOW}.imagePullPolicy": ("Always", "always", "IfNotPresent", ""),
    f"{_FLOW}.terminationMessagePolicy": ("File", "file", "FallbackToLogsOnError"),
    f"{_FLOW}.workingDir": ("", "a", "/a"),
    f"{_FLOW}.restartPolicy": ("Always", "Never"),
    f"{_FLOW}.securityContext": (
        {"privileged": True}, {"privileged": True, "allowPrivilegeEscalation": False},
        {"allowPrivilegeEscalation": False, "capabilities": {"add": ["CAP_SYS_ADMIN"]}},
        {"allowPrivilegeEscalation": False, "capabilities": {"add": ["SYS_ADMIN"]}},
        {"procMount": "Unmasked"}, {"procMount": "all"}, {"runAsUser": -5}, {"runAsNonRoot": True, "runAsUser": 0},
        {"appArmorProfile": {"type": "RuntimeDefault"}}, {"appArmorProfile": {"type": "x"}},
    ),
    f"{_SIDE}.name": (*NAMES, "flow-container", None),
    f"{_SIDE}.image": ("", None, " a", "a ", "A:B:C", "a"),
    f"{_SIDE}.ports": (
        [{}], [{"containerPort": 0}], [{"containerPort": 65535}], [{"containerPort": 65536}], [{"containerPort": -1}],
        [{"containerPort": 80, "name": "HTTP"}], [{"containerPort": 80, "name": "a" * 16}],
        [{"containerPort": 80, "name": "8080"}], [{"containerPort": 80, "name": "a--b"}],
        [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}],
        [{"containerPort": 80}, {"containerPort": 80}], [{"containerPort": 80, "protocol": "tcp"}],
        [{"containerPort": 80, "hostPort": 80}], [{"containerPort": 80, "hostPort": 65536}],
        [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}],
        [{"containerPort": 80, "hostIP": "a"}],
    ),
    f"{_SIDE}.livenessProbe": (
        {}, {"httpGet": {"port": "http"}}, {"httpGet": {"port": 0}}, {"httpGet": {"port": 65536}}, {"httpGet": {}},
        {"httpGet": {"port": "HTTP"}}, {"httpGet": {"port": 80, "scheme": "http"}}, {"exec": {}},
        {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}, {"tcpSocket": {"port": "80"}}, {"grpc": {"port": 0}},
        {"tcpSocket": {"port": 80}, "periodSeconds": -1}, {"tcpSocket": {"port": 80}, "successThreshold": 2},
        {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 0},
        {"tcpSocket": {"port": 80}, "periodSeconds": 0},
        {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "c"}]}},
    ),
    f"{_SIDE}.readinessProbe": (
        {"tcpSocket": {"port": 80}, "successThreshold": 2},
        {"tcpSocket": {"port": 80}, "terminationGracePeriodSeconds": 5},
    ),
    f"{_SIDE}.lifecycle": (
        {}, {"preStop": {}}, {"preStop": {"sleep": {"seconds": 5}}}, {"preStop": {"sleep": {"seconds": -1}}},
        {"postStart": {"exec": {"command": ["a"]}, "sleep": {"seconds": 5}}}, {"stopSignal": "SIGTERM"},
    ),
    f"{_INIT}.livenessProbe": ({"tcpSocket": {"port": 80}},),
    f"{_INIT}.lifecycle": ({"preStop": {"exec": {"command": ["a"]}}},),
    f"{_INIT}.name": (*NAMES, "side-car", "mesh", "flow-container"),
    f"{_INIT}.image": ("", None),
    f"{_INIT}.restartPolicy": ("Always", "always", "Never", "OnFailure"),
}  # fmt: skip


def variants() -> Iterator[tuple[str, Json]]:
    """Yield each variant with its name: the place and the value."""
    yield "unchanged", RICH
    for path, values in CHANGES.items():
        for value in values:
            yield f"{path}={value!r}"[:300], changed(path, value)


def changed(path: str, value: Any) -> Json:
    """Return the rich Job with another value at a place; None removes it."""
    job = copy.deepcopy(RICH)
    *parents, last = path.split(".")
    parent: Any = job
    for key in parents:
        parent = parent[int(key)] if key.isdigit() else parent.setdefault(key, {})
    place: Any = int(last) if last.isdigit() else last
    if value is None:
        del parent[place]
    else:
        parent[place] = copy.deepcopy(value)
    return job
