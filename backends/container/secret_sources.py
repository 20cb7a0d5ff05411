"""Secrets that a worker has, by name: in its variables, in its folder of secrets, or from another distribution.

Another distribution registers a function in the group ``dispatcher.secrets``. It takes the name, and returns the secret
or None. It should answer quickly, and repeat requests of its own that fail: an error ends the attempt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from backends.container.errors import refused
from dispatcher import registry
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.support.escaping import shown

#: The name of a private registry's credentials, where nobody names another.
REGISTRY_CREDENTIALS = "DOCKER_REGISTRY_CREDENTIALS"

#: Names that are the same in every source: no path, and no hidden file.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")

#: Most bytes of a secret in a file.
_LONGEST = 2**20


def is_secret_name(name: object) -> bool:
    """Return True if a secret may have this name. The project's own variables are no secrets of others."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and not name.upper().startswith("DISPATCHER__")


def find_secret(name: str, *, folder: Path | None, variables: Mapping[str, str] | None = None) -> str:
    """Return a secret of this worker.

    Args:
        name: its name: that of a variable, or of a file in the folder.
        folder: of secrets; None if there is none.
        variables: default: those of this process.

    Raises:
        Permanent: there is none, or it can't be read; says where it was looked for, and shows no secret.
        Transient: a source of another distribution fails for a while.
    """
    if not is_secret_name(name):
        raise refused(f"{shown(name)} can't be the name of a secret: use that of a variable or a file")
    if value := (os.environ if variables is None else variables).get(name):
        return value
    if folder is not None and (value := _in_folder(folder / name)):
        return value
    for source in registry.SECRETS.names():
        if value := _from_source(source, name):
            return value
    places = ["its variables", *([f"the folder {folder}"] if folder is not None else []), *registry.SECRETS.names()]
    raise refused(f"{name}: this worker has no such secret; looked for in {', '.join(places)}")


def _in_folder(path: Path) -> str:
    """Return what a file holds, without white space around it; empty if there is no such file.

    Raises:
        Permanent: it can't be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise refused(f"{path}: {error.strerror or type(error).__name__}") from None
    if len(data) > _LONGEST:
        raise refused(f"{path}: has more than {_LONGEST:,} bytes")
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise refused(f"{path}: isn't text in UTF-8") from None


def _from_source(source: str, name: str) -> str:
    """Ask a source of another distribution. Its message isn't repeated, since it may hold the secret.

    Raises:
        Permanent, Transient: the source's own, or that it failed.
    """
    try:
        value = registry.SECRETS.get(source)(name)
    except (Permanent, Transient):
        raise
    except DispatcherError as error:
        raise refused(str(error)) from None
    except Exception as error:
        raise refused(f"{name}: the source {source} of secrets raised {type(error).__name__}") from None
    if value is not None and not isinstance(value, str):
        raise refused(f"{name}: the source {source} of secrets must return a string or None")
    return value or ""
