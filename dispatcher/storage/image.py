"""What an image of flows is built from: a Dockerfile and its files, as one archive. Pure but for reading the files.

Called by :mod:`dispatcher.storage.docker`.
"""

from __future__ import annotations

import io
import json
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    from dispatcher.storage.docker import DockerStorage

#: The label that names an image's flows.
LABEL = "flow-dispatcher.flows"


def dockerfile(storage: DockerStorage, *, base: str, user: str) -> str:
    """The Dockerfile of ``storage`` on top of an image.

    What changes least comes first, so that another build of a changed flow takes all else from the cache.

    Args:
        storage: what to put into it.
        base: the image's id or name.
        user: the user that it runs as; empty: root.
    """
    install = "python3 -m pip install --no-cache-dir --disable-pip-version-check"
    ours = f"flow-dispatcher=={version('flow-dispatcher')}"
    lines = [f"FROM {base}", "USER root"]
    lines.append(f"RUN python3 -c 'import dispatcher.runner.child' || {install} {ours}")
    if storage.python_dependencies:
        lines.append(f"RUN {json.dumps([*install.split(), *storage.python_dependencies])}")
    for number, target in enumerate(storage.files.values()):
        lines.append(f"COPY {json.dumps([f'files/{number}', target])}")
    for name, value in storage.env_vars.items():
        lines.append(f"ENV {name}={_quoted(value)}")
    for number, path in enumerate(storage.sealed):
        lines.append(f"COPY {json.dumps([f'flows/{number}', path])}")
    lines.append(f"LABEL {LABEL}={_quoted(json.dumps(storage.paths, ensure_ascii=False))}")
    if user:
        lines.append(f"USER {user}")
    return "\n".join(lines) + "\n"


def context(storage: DockerStorage, *, base: str, user: str) -> bytes:
    """The build context, as a tar archive that is the same for the same content.

    Raises:
        InvalidInput: a file isn't there.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "Dockerfile", dockerfile(storage, base=base, user=user).encode())
        for number, data in enumerate(storage.sealed.values()):
            _add(archive, f"flows/{number}", data)
        for number, source in enumerate(storage.files):
            try:
                archive.add(Path(source), f"files/{number}", filter=_plain)
            except OSError as error:
                raise InvalidInput(f"DockerStorage.files: {source}: {error.strerror}") from error
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs between machines; readable by any user of the container."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
