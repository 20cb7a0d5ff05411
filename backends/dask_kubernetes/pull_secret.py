"""The Secret with which nodes pull images from a private registry: pure functions of the worker's credentials.

The credentials are a JSON object in the form that ``kubectl create secret docker-registry`` takes as options. The
Secret's name is made of its content, so that a new password makes a new Secret, and all runs with the same credentials
share one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from backends.container.errors import refused
from backends.container.secret_sources import REGISTRY_CREDENTIALS, find_secret
from backends.kubernetes.job_policy import PULL_SECRET
from dispatcher.errors import Permanent

#: The keys of the credentials, all of them required.
KEYS = ("docker-server", "docker-username", "docker-password", "docker-email")

#: Stands for the name where credentials are missing, as where a request is rendered.
UNKNOWN = "flow-dispatcher-pull-unknown"

_PREFIX = "flow-dispatcher-pull-"

#: Cost of the name's key derivation: tens of milliseconds, once per process. Whoever may list pods sees the name, and
#: must not be able to find a short password by trying.
_COST = {"n": 2**14, "r": 8, "p": 1}


@dataclass(frozen=True)
class RegistryCredentials:
    """Credentials of one registry. Never shown."""

    server: str = field(repr=False)
    username: str = field(repr=False)
    password: str = field(repr=False)
    email: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, *, source: str) -> RegistryCredentials:
        """Parse a JSON object with the keys of :data:`KEYS`.

        Args:
            text: the JSON.
            source: the name of the secret, for errors.

        Raises:
            Permanent: it isn't such an object; names what is missing, and shows no value.
        """
        form = f"a JSON object with {', '.join(KEYS)}"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise refused(f"{source}: must be {form}; it isn't JSON") from None
        if not isinstance(value, dict):
            raise refused(f"{source}: must be {form}; it is another kind of JSON")
        if missing := [key for key in KEYS if key not in value]:
            raise refused(f"{source}: must be {form}; missing: {', '.join(missing)}")
        if wrong := [key for key in KEYS if not _is_text(value[key])]:
            raise refused(f"{source}: {', '.join(wrong)} must be printable text that isn't empty")
        return cls(*(value[key] for key in KEYS))

    @property
    def config(self) -> str:
        """The content of a ``.dockerconfigjson``."""
        auth = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        entry = {"username": self.username, "password": self.password, "email": self.email, "auth": auth}
        return json.dumps({"auths": {self.server: entry}}, sort_keys=True)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def read_credentials(source: str | None, *, folder: Path | None) -> RegistryCredentials:
    """Return the credentials that a worker has under a name; None: the default name.

    Raises:
        Permanent: it has none, or they aren't as they must be.
        Transient: a source of another distribution fails for a while.
    """
    name = source or REGISTRY_CREDENTIALS
    try:
        text = find_secret(name, folder=folder)
    except Permanent as error:
        raise refused(f"docker_secret: {error}") from None
    return RegistryCredentials.parse(text, source=f"docker_secret: {name}")


@lru_cache(maxsize=64)
def secret_name(credentials: RegistryCredentials, instance: str) -> str:
    """Return the Secret's name: always the same for the same credentials and installation.

    Args:
        credentials: its content.
        instance: the value of the installation's label.
    """
    salt = f"{_PREFIX}{instance}".encode()
    return _PREFIX + hashlib.scrypt(credentials.config.encode(), salt=salt, dklen=10, **_COST).hex()


def is_pull_secret(name: object) -> bool:
    """Return True if a name has the form that :func:`secret_name` gives."""
    return isinstance(name, str) and PULL_SECRET.fullmatch(name) is not None


def manifest(credentials: RegistryCredentials, *, name: str, namespace: str, instance: str) -> Mapping[str, Any]:
    """Return the Secret. Nothing owns it: it outlives runs.

    Args:
        credentials: its content.
        name: its name.
        namespace: its namespace.
        instance: the value of the installation's label.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"instance": instance}},
        "type": "kubernetes.io/dockerconfigjson",
        "immutable": True,
        "stringData": {".dockerconfigjson": credentials.config},
    }
