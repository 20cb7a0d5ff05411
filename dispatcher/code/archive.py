"""Pack files into one archive, always the same for the same files, and unpack it again.

The archive is a ZIP file whose first member describes it. Names and sizes are checked before anything is written, since
an archive comes from whoever could sign a run.
"""

from __future__ import annotations

import importlib.machinery
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from dispatcher.code.chosen import File, Selection
from dispatcher.errors import Malformed

#: The member that describes the archive.
_DESCRIPTION = "bundle.json"
_MODULE_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_EPOCH = (1980, 1, 1, 0, 0, 0)  # ZIP knows no earlier time
_FILE_MODE, _PROGRAM_MODE = 0o100444, 0o100555

#: Largest unpacked archive, in bytes, and most members.
MOST_BYTES = 2**31
MOST_MEMBERS = 50_000


@dataclass(frozen=True)
class Description:
    """The description that an archive has of itself.

    Attributes:
        paths: directories that go onto ``sys.path``, in order.
        modules: top-level names of the modules in them.
        python: the Python that packed it, ``major.minor``.
        digests: each file's SHA-256, by its name.
    """

    paths: tuple[str, ...]
    modules: tuple[str, ...]
    python: str
    digests: Mapping[str, str]

    def importable(self) -> dict[str, bool]:
        """Return the top-level names under which its files could be imported, and whether each is a module or a regular
        package; else it is a directory, perhaps a namespace package."""
        names: dict[str, bool] = {}
        for path in self.paths:
            start = "" if path == "." else f"{path}/"
            for name in self.digests:
                if name.startswith(start):
                    _note_importable(names, name.removeprefix(start))
        return names


def pack(selection: Selection, python: str, read: Callable[[File], bytes | None]) -> bytes:
    """Return the archive of chosen files.

    Args:
        selection: the files.
        python: this interpreter, ``major.minor``.
        read: gives a file's bytes, or None for one that is left out after all.
    """
    contents = {file.name: (file, data) for file in selection.files if (data := read(file)) is not None}
    description = {
        "paths": list(selection.paths),
        "modules": sorted(selection.modules),
        "python": python,
        "digests": {name: sha256(data).hexdigest() for name, (_, data) in contents.items()},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _write(archive, _DESCRIPTION, json.dumps(description, sort_keys=True).encode(), _FILE_MODE)
        for name, (file, data) in sorted(contents.items()):
            _write(archive, name, data, _PROGRAM_MODE if file.executable else _FILE_MODE)
    return buffer.getvalue()


def describe(data: bytes) -> Description:
    """Read what an archive says of itself.

    Raises:
        Malformed: it is no archive of this form.
    """
    with _opened(data) as archive:
        return _description(archive)


def extract(data: bytes, directory: Path) -> Description:
    """Write the files of an archive into a directory that is empty.

    Raises:
        Malformed: it is no archive of this form, is too large, or names a place outside of the directory.
        OSError: the files can't be written.
    """
    with _opened(data) as archive:
        description = _description(archive)
        for member in archive.infolist():
            if member.filename != _DESCRIPTION:
                _extract(archive, member, directory, description)
    return description


def changed_files(description: Description, directory: Path) -> Iterable[str]:
    """Return the names of the files in a directory that aren't as they were packed, and of modules added to them.

    Other files that were added, such as those that a flow wrote beside its module, are no change.
    """
    for name, digest in description.digests.items():
        try:
            if sha256((directory / name).read_bytes()).hexdigest() != digest:
                yield name
        except OSError:
            yield name
    for place, _, names in os.walk(directory):
        for name in names:
            path = Path(place, name).relative_to(directory).as_posix()
            compiled = place.endswith("__pycache__") and name.endswith(".pyc")
            if name.endswith(_MODULE_SUFFIXES) and not compiled and path not in description.digests:
                yield path


def _note_importable(names: dict[str, bool], name: str) -> None:
    first, _, rest = name.partition("/")
    if rest:
        names[first] = names.get(first, False) or rest.startswith("__init__.")
    elif first.endswith(_MODULE_SUFFIXES):
        names[first.partition(".")[0]] = True


def _write(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = mode << 16
    member.create_system = 3  # Unix, wherever it is packed
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, data, compresslevel=6)


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise Malformed(f"code bundle: no ZIP archive: {error}") from None
    members = archive.infolist()
    if len(members) > MOST_MEMBERS or sum(member.file_size for member in members) > MOST_BYTES:
        raise Malformed(f"code bundle: more than {MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes")
    for member in members:
        _check_name(member.filename)
    return archive


def _description(archive: zipfile.ZipFile) -> Description:
    try:
        fields = json.loads(archive.read(_DESCRIPTION))
        description = Description(
            paths=tuple(map(str, fields["paths"])),
            modules=tuple(map(str, fields["modules"])),
            python=str(fields["python"]),
            digests={str(name): str(digest) for name, digest in fields["digests"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
        raise Malformed(f"code bundle: its description can't be read: {error!r}") from None
    for path in description.paths:
        _check_name(path)
    return description


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, directory: Path, description: Description) -> None:
    name = member.filename
    try:
        data = archive.read(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise Malformed(f"code bundle: {name!r} can't be unpacked: {error}") from None
    if sha256(data).hexdigest() != description.digests.get(name):
        raise Malformed(f"code bundle: {name!r} isn't what its description says")
    target = directory / name
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o500 if (member.external_attr >> 16) & 0o100 else 0o400
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise Malformed(f"code bundle: {name!r} leads out of its directory")
