"""Import a bundle's modules from its sources alone, each checked against the bundle when it is imported.

Python's own loader would take bytecode from ``__pycache__``, which says nothing of who has made it. A hook of
``sys.path_hooks`` replaces it for the directories of the bundles that this process uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from types import CodeType

from dispatcher.code.bytecode import BytecodeStore
from dispatcher.code.imported_modules import forget_paths


@dataclass(frozen=True)
class BundleFiles:
    """The files of a bundle on disk.

    Attributes:
        directory: where they are.
        digests: each file's SHA-256, by its name.
        bytecode: keeps compiled code for other processes; None to keep none.
    """

    directory: str
    digests: Mapping[str, str]
    bytecode: BytecodeStore | None = None


_used: dict[str, BundleFiles] = {}  # by directory


def use(files: BundleFiles) -> None:
    """Import from a bundle's directories by this module, until :func:`forget`."""
    _used[files.directory] = files
    install()
    forget_paths([files.directory])


def forget(directory: str) -> None:
    """Import from them no more."""
    _used.pop(directory, None)


def install() -> None:
    """Add the hook, if it isn't there."""
    if _finder not in sys.path_hooks:
        sys.path_hooks.insert(0, _finder)


class _SourceLoader(SourceFileLoader):
    """Loads a module of a bundle."""

    def __init__(self, files: BundleFiles, name: str, path: str) -> None:
        super().__init__(name, path)
        self._files = files

    def get_code(self, fullname: str) -> CodeType:
        """Return a module's code.

        Raises:
            ImportError: its file was changed since the bundle was packed.
        """
        path, files = self.get_filename(fullname), self._files
        source = self.get_data(path)
        digest = sha256(source).hexdigest()
        expected = files.digests.get(path[len(files.directory) + 1 :])
        if expected is None:  # a module that the flow itself has written there
            return self.source_to_code(source, path)
        if digest != expected:
            raise ImportError(f"{path} was changed after the code bundle was unpacked", name=fullname, path=path)
        code = None if files.bytecode is None else files.bytecode.get(path, digest)
        if code is None:
            code = self.source_to_code(source, path)
            if files.bytecode is not None:
                files.bytecode.put(path, digest, code)
        return code


def _finder(path: str) -> FileFinder:
    """Return the finder of a directory in a bundle. Called by the import system.

    Raises:
        ImportError: it is in none.
    """
    for directory, files in list(_used.items()):
        if path == directory or path.startswith(directory + os.sep):
            return FileFinder(
                path,
                (ExtensionFileLoader, EXTENSION_SUFFIXES),
                (partial(_SourceLoader, files), SOURCE_SUFFIXES),  # type: ignore[arg-type]  # called as a class is
            )
    raise ImportError("not in a bundle", path=path)
