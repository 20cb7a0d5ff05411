"""Rules for the values of a Job, as the API server has them: choices, ranges, forms of names, what excludes what.

A mistake is told where the Job is written, not when it is sent. The rules are those of Kubernetes 1.34
(``pkg/apis/core/validation``); ``tests/cloud/test_kubernetes_validation.py`` compares them with a server's own answers.
Pure. Called by :mod:`backends.kubernetes.job_spec` with Jobs whose types are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.kubernetes import job_checks
from backends.kubernetes import job_forms as forms
from dispatcher.support.escaping import shown

#: Forms of texts, by model and field.
FORMS: Mapping[tuple[str, str], forms.Form] = {
    ("V1Container", "name"): forms.DNS_LABEL,
    ("V1Container", "image"): forms.IMAGE,
    ("V1ContainerPort", "name"): forms.PORT_NAME,
    ("V1EnvVar", "name"): forms.VARIABLE,
    ("V1SecretKeySelector", "name"): forms.DNS_NAME,
    ("V1SecretKeySelector", "key"): forms.KEY,
    ("V1EnvFromSource", "prefix"): forms.VARIABLE,
    ("V1ObjectFieldSelector", "fieldPath"): forms.FIELD,
    ("V1ResourceFieldSelector", "resource"): forms.RESOURCE,
    ("V1HTTPHeader", "name"): forms.HEADER,
    ("V1Sysctl", "name"): forms.SYSCTL,
    ("V1Toleration", "value"): forms.LABEL_VALUE,
    ("V1ConfigMapKeySelector", "key"): forms.KEY,
    ("V1KeyToPath", "path"): forms.BELOW,
    ("V1DownwardAPIVolumeFile", "path"): forms.BELOW,
    ("V1ServiceAccountTokenProjection", "path"): forms.BELOW,
    ("V1HostPathVolumeSource", "path"): forms.NO_BACKSTEPS,
    ("V1Volume", "name"): forms.DNS_LABEL,
    ("V1VolumeMount", "subPath"): forms.RELATIVE,
    ("V1VolumeMount", "subPathExpr"): forms.RELATIVE,
    ("V1PodSpec", "hostname"): forms.DNS_LABEL,
    ("V1PodSpec", "subdomain"): forms.DNS_LABEL,
    ("V1PodSpec", "serviceAccountName"): forms.DNS_NAME,
    ("V1PodSpec", "priorityClassName"): forms.DNS_NAME,
    ("V1PodSpec", "runtimeClassName"): forms.DNS_NAME,
    ("V1PodSpec", "nodeName"): forms.DNS_NAME,
    ("V1ObjectMeta", "namespace"): forms.DNS_LABEL,
}

#: Fields that may not be missing or empty, by model.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "V1EnvVar": ("name",),
    "V1ContainerPort": ("containerPort",),
    "V1VolumeMount": ("name", "mountPath"),
    "V1VolumeDevice": ("name", "devicePath"),
    "V1Volume": ("name",),
    "V1KeyToPath": ("key", "path"),
    "V1SecretKeySelector": ("name", "key"),
    "V1ConfigMapKeySelector": ("name", "key"),
    "V1SecretEnvSource": ("name",),
    "V1ConfigMapEnvSource": ("name",),
    "V1ObjectFieldSelector": ("fieldPath",),
    "V1ResourceFieldSelector": ("resource",),
    "V1SecretVolumeSource": ("secretName",),
    "V1ConfigMapVolumeSource": ("name",),
    "V1SecretProjection": ("name",),
    "V1ConfigMapProjection": ("name",),
    "V1ServiceAccountTokenProjection": ("path",),
    "V1PersistentVolumeClaimVolumeSource": ("claimName",),
    "V1HostPathVolumeSource": ("path",),
    "V1NFSVolumeSource": ("server", "path"),
    "V1CSIVolumeSource": ("driver",),
    "V1DownwardAPIVolumeFile": ("path",),
    "V1EphemeralVolumeSource": ("volumeClaimTemplate",),
    "V1HTTPGetAction": ("port",),
    "V1TCPSocketAction": ("port",),
    "V1GRPCAction": ("port",),
    "V1ExecAction": ("command",),
    "V1HTTPHeader": ("name",),
    "V1HostAlias": ("ip",),
    "V1Sysctl": ("name",),
    "V1SeccompProfile": ("type",),
    "V1AppArmorProfile": ("type",),
    "V1PodSchedulingGate": ("name",),
    "V1NodeSelector": ("nodeSelectorTerms",),
    "V1NodeSelectorRequirement": ("key", "operator"),
    "V1LabelSelectorRequirement": ("key", "operator"),
    "V1PodAffinityTerm": ("topologyKey",),
    "V1TopologySpreadConstraint": ("maxSkew", "topologyKey", "whenUnsatisfiable"),
    "V1PodReadinessGate": ("conditionType",),
    "V1OwnerReference": ("apiVersion", "kind", "name", "uid"),
}

#: Values that a text may have, by model and field.
CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("V1Container", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("V1Container", "terminationMessagePolicy"): ("File", "FallbackToLogsOnError"),
    ("V1ContainerPort", "protocol"): ("TCP", "UDP", "SCTP"),
    ("V1HTTPGetAction", "scheme"): ("HTTP", "HTTPS"),
    ("V1VolumeMount", "mountPropagation"): ("None", "HostToContainer", "Bidirectional"),
    ("V1VolumeMount", "recursiveReadOnly"): ("Disabled", "IfPossible", "Enabled"),
    ("V1PodSpec", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("V1PodSpec", "preemptionPolicy"): ("PreemptLowerPriority", "Never"),
    ("V1PodOS", "name"): ("linux", "windows"),
    ("V1Toleration", "operator"): ("Exists", "Equal"),
    ("V1Toleration", "effect"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("V1SeccompProfile", "type"): ("RuntimeDefault", "Localhost", "Unconfined"),
    ("V1AppArmorProfile", "type"): ("RuntimeDefault", "Localhost", "Unconfined"),
    ("V1SecurityContext", "procMount"): ("Default", "Unmasked"),
    ("V1PodSecurityContext", "fsGroupChangePolicy"): ("OnRootMismatch", "Always"),
    ("V1NodeSelectorRequirement", "operator"): ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    ("V1LabelSelectorRequirement", "operator"): ("In", "NotIn", "Exists", "DoesNotExist"),
    ("V1TopologySpreadConstraint", "whenUnsatisfiable"): ("DoNotSchedule", "ScheduleAnyway"),
    ("V1JobSpec", "completionMode"): ("NonIndexed", "Indexed"),
    ("V1HostPathVolumeSource", "type"): (
        "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice",
    ),
}  # fmt: skip

_INT32, _INT64 = 2**31 - 1, 2**63 - 1
_PORT = (1, 65535)
_MODE = (0, 0o777)
_COUNT = (0, _INT32)
#: Longest time that the cluster's programs count, in seconds: as nanoseconds it has 64 bits. More would be negative.
LONGEST = _INT64 // 10**9
_SECONDS = (0, LONGEST)
_ID = (0, _INT32)

#: Ranges of whole numbers, by model and field; any other number of 32 bits may be of any size.
RANGES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("V1JobSpec", "activeDeadlineSeconds"): _SECONDS,
    ("V1JobSpec", "ttlSecondsAfterFinished"): _COUNT,
    ("V1PodSpec", "activeDeadlineSeconds"): (1, _INT32),
    ("V1PodSpec", "terminationGracePeriodSeconds"): _SECONDS,
    ("V1ContainerPort", "containerPort"): _PORT,
    ("V1ContainerPort", "hostPort"): (0, 65535),
    ("V1GRPCAction", "port"): _PORT,
    ("V1Probe", "initialDelaySeconds"): _COUNT,
    ("V1Probe", "timeoutSeconds"): _COUNT,
    ("V1Probe", "periodSeconds"): _COUNT,
    ("V1Probe", "successThreshold"): _COUNT,
    ("V1Probe", "failureThreshold"): _COUNT,
    ("V1Probe", "terminationGracePeriodSeconds"): (1, _INT64),
    ("V1SecretVolumeSource", "defaultMode"): _MODE,
    ("V1ConfigMapVolumeSource", "defaultMode"): _MODE,
    ("V1ProjectedVolumeSource", "defaultMode"): _MODE,
    ("V1DownwardAPIVolumeSource", "defaultMode"): _MODE,
    ("V1KeyToPath", "mode"): _MODE,
    ("V1DownwardAPIVolumeFile", "mode"): _MODE,
    ("V1ServiceAccountTokenProjection", "expirationSeconds"): (600, 2**32),
    ("V1SecurityContext", "runAsUser"): _ID,
    ("V1SecurityContext", "runAsGroup"): _ID,
    ("V1PodSecurityContext", "runAsUser"): _ID,
    ("V1PodSecurityContext", "runAsGroup"): _ID,
    ("V1PodSecurityContext", "fsGroup"): _ID,
    ("V1PreferredSchedulingTerm", "weight"): (1, 100),
    ("V1WeightedPodAffinityTerm", "weight"): (1, 100),
    ("V1TopologySpreadConstraint", "maxSkew"): (1, _INT32),
    ("V1TopologySpreadConstraint", "minDomains"): (1, _INT32),
    ("V1Toleration", "tolerationSeconds"): (-_INT64, _INT64),
    ("V1SleepAction", "seconds"): _SECONDS,
    ("V1ObjectMeta", "generation"): (0, _INT64),
    ("V1ObjectMeta", "deletionGracePeriodSeconds"): _SECONDS,
}

#: Fields of which exactly one must be given, by model.
EXACTLY_ONE: Mapping[str, tuple[str, ...]] = {
    "V1EnvFromSource": ("configMapRef", "secretRef"),
    "V1EnvVarSource": ("configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"),
    "V1Probe": ("exec", "grpc", "httpGet", "tcpSocket"),
    "V1LifecycleHandler": ("exec", "httpGet", "sleep", "tcpSocket"),
    "V1DownwardAPIVolumeFile": ("fieldRef", "resourceFieldRef"),
}  # fmt: skip

#: Fields of which at most one may be given, by model.
AT_MOST_ONE: Mapping[str, tuple[str, ...]] = {
    "V1EnvVar": ("value", "valueFrom"),
    "V1VolumeMount": ("subPath", "subPathExpr"),
    "V1VolumeProjection": (
        "clusterTrustBundle",
        "configMap",
        "downwardAPI",
        "podCertificate",
        "secret",
        "serviceAccountToken",
    ),
}

#: Mappings whose keys, and with the second form also values, are names or labels.
_LABELS = frozenset({("V1ObjectMeta", "labels"), ("V1PodSpec", "nodeSelector"), ("V1LabelSelector", "matchLabels")})
_AMOUNTS = frozenset({"limits", "requests", "overhead"})


def value_problems(model: str, value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield what is wrong with the values of one mapping of a Job, each with its path.

    Args:
        model: the mapping's model in the table of fields.
        value: the mapping, of the right types.
        path: its place in the Job.
    """
    present = {name: item for name, item in value.items() if item is not None}
    prefix = f"{path}." if path else ""
    for name in REQUIRED.get(model, ()):
        if name not in present or present[name] in ("", []):
            yield f"{prefix}{name}: is required"
    for name, item in present.items():
        for problem in _field_problems(model, name, item):
            yield f"{prefix}{name}{problem}"
    if check := job_checks.CHECKS.get(model):
        yield from check(present, path)
    if choices := EXACTLY_ONE.get(model):
        chosen = [name for name in choices if name in present]
        if len(chosen) != 1:
            yield f"{path}: must have exactly one of {', '.join(choices)}; got {' and '.join(chosen) or 'none'}"
    chosen = [name for name in AT_MOST_ONE.get(model, ()) if present.get(name) not in (None, "")]
    if len(chosen) > 1:
        yield f"{path}: can't have both {' and '.join(chosen)}"


def _field_problems(model: str, name: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with a field's value, each beginning with what follows the field's name in a path."""
    field = (model, name)
    if isinstance(value, str):
        yield from _text_problems(field, value)
    elif isinstance(value, int) and not isinstance(value, bool):
        least, most = RANGES.get(field, (-_INT32 - 1, _INT32))
        if value < least:
            yield f": must be at least {least}, got {value}"
        elif value > most:
            yield f": must be at most {most}, got {value}"
    elif field in _LABELS:
        yield from _label_problems(value)
    elif field == ("V1ObjectMeta", "annotations"):
        yield from (f".{key}: must be {forms.QUALIFIED[2]}" for key in value if not forms.is_qualified(key.lower()))
    elif name in _AMOUNTS:
        yield from _amount_problems(value)


def _text_problems(field: tuple[str, str], value: str) -> Iterator[str]:
    """Yield what is wrong with a text. An empty one counts as missing."""
    form, choices = FORMS.get(field), CHOICES.get(field)
    if form and value and not forms.fits(value, form):
        yield f": must be {form[2]}, got {shown(value)}"
    if choices and value and value not in choices:
        yield f": must be one of {', '.join(choices)}, got {shown(value)}"


def _label_problems(labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if not forms.is_qualified(key):
            yield f".{key}: must be {forms.QUALIFIED[2]}"
        if value is not None and not forms.fits(value, forms.LABEL_VALUE):
            yield f".{key}: must be {forms.LABEL_VALUE[2]}, got {shown(value)}"


def _amount_problems(amounts: Mapping[str, Any]) -> Iterator[str]:
    for resource, amount in amounts.items():
        yield from (f".{resource}: {problem}" for problem in forms.amount_problems(amount))
