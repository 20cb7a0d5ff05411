"""Scan code for the modules that it imports, also within functions. Executes nothing."""

from __future__ import annotations

import dis
import marshal
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType

#: Names by which code imports at run time; the strings beside them may be modules.
_IMPORT_FUNCTIONS = frozenset({"import_module", "__import__", "run_module"})

_IMPORT = dis.opmap["IMPORT_NAME"]

_DOTTED_NAME = re.compile(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*")

#: Without one of these words a file imports nothing.
_IMPORT_WORD = re.compile(rb"\b(?:import|import_module|__import__|run_module)\b")

#: A line that begins a definition, outside of any block.
_DEFINITION = re.compile(rb"^(?:def|class|async|@)", re.MULTILINE)


@lru_cache(maxsize=1000)
def imports_of(code: CodeType, package: str) -> frozenset[str]:
    """Return the absolute names of all modules that code may import.

    ``from a import b`` gives ``a`` and ``a.b``, since ``b`` may be a module. Code that calls ``import_module`` gives
    every string constant that looks like a module, too. Not every name has to exist.

    Args:
        code: of a module or a function; functions and classes within it are scanned as well.
        package: the package that relative imports start from; empty for a top-level module.
    """
    return frozenset(_imports(code, package))


def imports_of_file(path: Path, package: str) -> frozenset[str]:
    """Return what :func:`imports_of` gives for a source file; nothing if it can't be read or compiled.

    The last few thousand files are remembered until their size or time of change differs.
    """
    try:
        stat = path.stat()
        return _imports_of_file(str(path), stat.st_ctime_ns, stat.st_size, package)
    except OSError:
        return frozenset()


@lru_cache(maxsize=20_000)
def _imports_of_file(path: str, changed: int, _size: int, package: str) -> frozenset[str]:
    try:
        code = _cached_code(path, changed) or _code_that_imports(Path(path).read_bytes(), path)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # whoever imports it is told
        return frozenset()
    return imports_of(code, package)


def _code_that_imports(source: bytes, path: str) -> CodeType:
    """Compile a source as far as it may import: most import at the top alone, and compiling takes most of the time.

    Raises:
        SyntaxError: it can't be compiled.
        ValueError: it has null bytes.
    """
    words = list(_IMPORT_WORD.finditer(source))
    if all(word[0] == b"import" for word in words):  # else every string at the end may be a module's name
        end = _DEFINITION.search(source, words[-1].end() if words else 0)
        if end is not None:
            with suppress(SyntaxError):  # within a string that has a line like that
                return compile(source[: end.start()], path, "exec", dont_inherit=True)
    return compile(source, path, "exec", dont_inherit=True)


def _cached_code(path: str, changed: int) -> CodeType | None:
    """The compiled code that Python has cached of a source file, which takes a tenth of the time to read.

    Python compares the time of change in seconds. Code that was cached before a later edit in that second isn't taken.
    """
    try:
        cached = Path(cache_from_source(path))
        if cached.stat().st_mtime_ns <= changed:
            return None
        return _Reader("module", path).get_code("module")
    except (OSError, ImportError, EOFError, SyntaxError, ValueError, NotImplementedError):
        return None


class _Reader(SourceFileLoader):
    """Caches nothing itself."""

    def set_data(self, *_: object, **_options: object) -> None:
        """Write no file."""


def _imports(code: CodeType, package: str) -> Iterator[str]:
    level, names = 0, None
    # Disassembling takes most of the time, and few functions import anything.
    for instruction in dis.get_instructions(code) if _IMPORT in code.co_code[::2] else ():
        if instruction.opname == "IMPORT_NAME":
            yield from _resolved(str(instruction.argval), level, names, package)
        elif instruction.opcode in dis.hasconst or instruction.opname == "LOAD_SMALL_INT":
            # What an import statement pushes before the import: its level, then its names.
            level, names = names if isinstance(names, int) else 0, instruction.argval
    if _IMPORT_FUNCTIONS.intersection(code.co_names):
        yield from _literal_imports(code, package)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant, package)


def _resolved(name: str, level: int, names: object, package: str) -> Iterator[str]:
    base = _absolute(name, level, package)
    if base is None:
        return
    if base:
        yield base
    if isinstance(names, tuple):
        yield from (f"{base}.{member}" if base else member for member in names if member != "*")


def _literal_imports(code: CodeType, package: str) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str) and len(constant) < 200 and _DOTTED_NAME.fullmatch(constant):
            name = constant.lstrip(".")
            base = _absolute(name, len(constant) - len(name), package)
            if base:
                yield base


def _absolute(name: str, level: int, package: str) -> str | None:
    """The absolute name of a relative import; None if it leads out of the top-level package."""
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return None
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def same_code(code: CodeType, other: CodeType) -> bool:
    """Return True if two code objects do the same, wherever their files are."""
    return code == other or marshal.dumps(_without_file(code)) == marshal.dumps(_without_file(other))


def _without_file(code: CodeType) -> CodeType:
    constants = tuple(_without_file(value) if isinstance(value, CodeType) else value for value in code.co_consts)
    return code.replace(co_filename="", co_consts=constants)
