"""Our own wheel and pip, made of this environment's files, for :mod:`dispatcher.storage.docker.image`.

An image of flows gets the very code that builds it, so that no package index needs to have this version.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from dispatcher.errors import InvalidInput
from dispatcher.support.own_packages import PACKAGES, ROOT

_WHEEL_METADATA = "Wheel-Version: 1.0\nGenerator: flow-dispatcher\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel() -> tuple[str, bytes]:
    """Return name and bytes of our own wheel, made of the files that this process runs, even those of a checkout."""
    own_distribution = distribution("flow-dispatcher")
    stem = f"flow_dispatcher-{own_distribution.version}"
    info = f"{stem}.dist-info"
    files = {
        **dict(_sources()),
        f"{info}/METADATA": (own_distribution.read_text("METADATA") or "").encode(),
        f"{info}/WHEEL": _WHEEL_METADATA.encode(),
        f"{info}/entry_points.txt": (own_distribution.read_text("entry_points.txt") or "").encode(),
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"{stem}-py3-none-any.whl", _zipped(files)


def pip() -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of this environment's pip.

    Raises:
        InvalidInput: pip isn't installed.
    """
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise InvalidInput(
            "DockerStorage.build: there is no pip in this environment to install packages in the image with: "
            "python -m ensurepip, or install the package pip"
        )
    yield from _files(Path(spec.origin).parent)


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        yield from _files(ROOT / package)


def _files(package: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(package.parent).as_posix(), path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    """Return a ZIP archive. The same content gives the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # dated 1980-01-01 by default, so that the bytes don't depend on the time
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()
