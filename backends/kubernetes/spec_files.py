"""A manifest given to an environment: as a YAML file, which is read at once, or as a mapping."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.container import arguments
from backends.kubernetes import job_spec as specs


def read(
    argument: str,
    file: str | os.PathLike[str] | None,
    spec: Mapping[str, Any] | None,
    *,
    subject: str,
    kind: str = "Job",
    check: Callable[[Any, str], None],
) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return the file's absolute path, and the checked manifest of the file or of the mapping.

    Args:
        argument: the one for the mapping; the one for the file ends with ``_file``.
        file: the file, or None.
        spec: the mapping, or None.
        subject: the environment's name, for messages.
        kind: of the manifest, for messages too.
        check: checks the manifest; its second argument names the source.

    Raises:
        InvalidInput: both are given, the file can't be read, or the manifest is wrong.
    """
    if file is not None and spec is not None:
        raise arguments.wrong(f"{subject}.{argument}", f"can't be given beside {argument}_file; got", spec)
    if file is None:
        if spec is not None:
            check(spec, argument)
        return None, spec
    if not isinstance(file, str | os.PathLike) or not os.fspath(file):
        raise arguments.wrong(f"{subject}.{argument}_file", "must be the path of a YAML file", file)
    path = str(Path(file).expanduser().absolute())
    manifest = specs.load(path, argument=f"{argument}_file", kind=kind)
    check(manifest, f"{argument}_file {path}")
    return path, manifest
