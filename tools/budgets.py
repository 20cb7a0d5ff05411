"""Budgets on size, which neither ruff nor mypy checks: lines of a file, lines of a function without its docstring.

Called by ``make check``, pre-commit and the tests. To raise a budget is a commit of its own, with its reason.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60

#: Files of one noun that is larger, each with its budget.
RAISED = {
    "tests/integration/test_docker_storage.py": 480,  # what one engine builds and runs
}
PACKAGES = ("dispatcher", "backends", "workers", "benchmarks", "examples", "tests", "tools")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def excesses(source: str, name: str) -> Iterator[str]:
    """Say where a file is over a budget, one line for each place."""
    lines = len(source.splitlines())
    most = RAISED.get(name, FILE_LINES)
    if lines > most:
        yield f"{name}: {lines} lines; a file may have {most}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Function) and (length := _length(node)) > FUNCTION_LINES:
            yield f"{name}:{node.lineno}: {node.name} has {length} lines; a function may have {FUNCTION_LINES}"


def _length(function: _Function) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


def files(root: Path) -> list[Path]:
    """The Python files that have a budget."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def check(root: Path, paths: Iterable[Path]) -> list[str]:
    """All excesses of ``paths``, named relative to ``root``."""
    return [line for path in paths for line in excesses(path.read_text(encoding="utf-8"), str(path.relative_to(root)))]


def main() -> int:
    """Print all excesses of this checkout; 1 if there are any."""
    root = Path(__file__).resolve().parent.parent
    found = check(root, files(root))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
