"""Flows as files in a directory that submitters and workers share."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, ClassVar

from dispatcher.errors import InvalidInput, SealBroken
from dispatcher.flows.flow import Flow, as_flow, unpack_flow
from dispatcher.storage import child_process
from dispatcher.storage.answer import Runner
from dispatcher.storage.base import Storage
from dispatcher.support.atomic_files import write_atomically

# File names as add_flow makes them: no folder, no hidden file, no path that leaves the directory.
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}", re.ASCII)


class LocalStorage(Storage):
    """Keeps each flow in a file ``<flow>-<digest>.flow``: its code, and behind it the files of its project.

    A location is the file's name and the full SHA-256 of its bytes, ``etl-1f0c….flow#1f0c…``. A changed file is
    refused.

    Args:
        directory: the directory's path. A relative one is made absolute, ``~`` is expanded. If it isn't there when the
            first flow is added, it is created and closed to other users; create it yourself to share it with them.
    """

    added: ClassVar[tuple[str, ...]] = ("directory",)

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
            raise InvalidInput(f"LocalStorage.directory: must be a path, got {directory!r}")
        self.directory = str(Path(directory).expanduser().absolute())

    def add_flow(self, flow: Flow[..., Any]) -> str:
        from dispatcher.flows.packing import pack_flow

        name = as_flow(flow).name
        data = pack_flow(flow, bundler=self.bundler)
        digest = hashlib.sha256(data).hexdigest()
        file = f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)[:100].lstrip('.') or 'flow'}-{digest[:16]}.flow"
        path = Path(self.directory, file)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                write_atomically(path, data)
        except OSError as error:
            raise InvalidInput(f"LocalStorage: can't write {path}: {error.strerror or error}") from error
        self.flows[name] = f"{file}#{digest}"
        return self.flows[name]

    def get_flow(self, location: str) -> Flow[..., Any]:
        return unpack_flow(self._read(location), subject=f"file {location.rpartition('#')[0]}")

    def kept_bundle(self, location: str) -> bytes | None:
        from dispatcher.serialization import pickles

        return pickles.bundle_in(self._read(location))

    def get_env_runner(self, location: str) -> Runner:
        return child_process.runner(self, location)

    def _read(self, location: str) -> bytes:
        """Read the file at a location, and check its digest."""
        file, _, digest = location.rpartition("#")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not _FILE_NAME.fullmatch(file):
            raise InvalidInput(f"LocalStorage: a location is '<file>#<SHA-256>' as add_flow gave it, got {location!r}")
        data = _bytes_of(Path(self.directory, file))
        if hashlib.sha256(data).hexdigest() != digest:
            raise SealBroken(
                f"LocalStorage: {Path(self.directory, file)} was changed since it was submitted (its SHA-256 isn't "
                f"{digest}), and isn't opened: submit the flow again, which writes its file anew"
            )
        return data


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        there = "the directory is there, the file isn't" if path.parent.is_dir() else "there is no such directory"
        raise InvalidInput(
            f"LocalStorage: no {path} on this machine ({there}): submitter and worker must share it"
        ) from None
    except OSError as error:
        raise InvalidInput(f"LocalStorage: can't read {path}: {error.strerror or error}") from error
