"""Creation of an attempt with a Dask cluster: its Job, Secret, certificate and network policy, in this order.

Each step may have been done by an earlier call with the same request. Workers come later
(:mod:`backends.dask_kubernetes.workers`); deleting the Job deletes everything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from backends.base import Request
from backends.dask_kubernetes import manifest
from backends.kubernetes import manifest as jobs
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.create import CONFLICT_DELAY, MAX_TRIES, create_job, create_secret
from dispatcher.errors import Transient
from dispatcher.executors.dask_cluster.certificates import make_certificate
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

Json = dict[str, Any]

#: Answers to a request for a network policy of a worker that may not make one, or of a cluster that has none.
_WITHOUT_POLICY = {403, 404, 405}


def create(
    api: Api,
    request: Request,
    secret: Callable[[str], Mapping[str, Any]],
    *,
    throttle: LogThrottle,
) -> Json:
    """Create what a request asks for, but for its workers; return the Job.

    A certificate that an earlier call has stored is kept: the flow's pod may have mounted it.

    Args:
        api: the cluster.
        request: what is created.
        secret: returns the manifest of the runner's Secret for the Job's UID.
        throttle: logs that there is no network policy.

    Raises:
        MissingExtra: Dask isn't installed.
        Permanent: the name belongs to another Job, or the Job is being deleted.
        Transient: it isn't clear yet whether everything exists.
        ApiError, Unclear, Unreachable: of the API.
    """
    run_id = str(request["job"]["metadata"]["annotations"][jobs.RUN])
    certificate = make_certificate()  # first: between the Job and its Secrets every moment delays the pod
    job = create_job(api, request)
    uid = job["metadata"]["uid"]
    failpoint("cluster.job_made", run_id, lost=Transient)
    create_secret(api, request["namespace"], secret(uid))
    failpoint("cluster.secret_made", run_id, lost=Transient)
    _create_unless_there(api, "secrets", manifest.tls_secret(request, uid, certificate.cert, certificate.key))
    failpoint("cluster.certificate_made", run_id, lost=Transient)
    try:
        _create_unless_there(api, "networkpolicies", manifest.network_policy(request, uid))
    except ApiError as error:
        if error.status not in _WITHOUT_POLICY:
            raise
        throttle.warn(f"Runs in namespace {request['namespace']} have no network policy, but TLS", error)
    failpoint("cluster.policy_made", run_id, lost=Transient)
    return job


def _create_unless_there(api: Api, kind: str, body: Mapping[str, Any]) -> None:
    """Create an object; leave one of the same name as it is."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    for tries in range(MAX_TRIES):
        try:
            api.create(namespace, kind, body)
            return
        except ApiError as error:
            if error.status != 409:
                raise
            if error.reason == "AlreadyExists":
                return
            time.sleep(CONFLICT_DELAY * (tries + 1))  # Conflict: others were updating the same quota
        except Unclear:
            continue
    raise Transient(f"{body['kind']} {namespace}/{name}: not created yet, after {MAX_TRIES} tries")
