"""Budgets on size, which neither ruff nor mypy checks: lines of a file and of a function, methods of a class.

Called by ``make check``, pre-commit and the tests. To raise a budget is a commit of its own, with its reason.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60
CLASS_METHODS = 20

#: Files of one noun that is larger, each with its budget.
RAISED = {
    "tests/integration/test_docker_storage.py": 480,  # what one engine builds and runs
    "tests/kubernetes_api.py": 430,  # an API server: its objects, watches and faults
}

#: Classes of one noun that has more methods, each with its budget.
RAISED_CLASSES = {
    "backends/kubernetes/backend.py:KubernetesBackend": 26,  # one method per call and power of a backend
    "dispatcher/client/client.py:Dispatcher": 25,  # public: one method per request of a user
    "dispatcher/client/run.py:Run": 33,  # public: all that a user asks of a run
    "tests/chaos/fault_injector.py:FaultInjector": 28,  # one method for each fault
    "tests/conformance/test_records_model.py:Histories": 23,  # one rule for each request
}

PACKAGES = ("dispatcher", "backends", "workers", "benchmarks", "examples", "tests", "tools")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def excesses(source: str, name: str) -> Iterator[str]:
    """Yield one line for each place at which a file is over a budget."""
    lines = len(source.splitlines())
    most_lines = RAISED.get(name, FILE_LINES)
    if lines > most_lines:
        yield f"{name}: {lines} lines; a file may have {most_lines}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Function) and (length := _length(node)) > FUNCTION_LINES:
            yield f"{name}:{node.lineno}: {node.name} has {length} lines; a function may have {FUNCTION_LINES}"
        if isinstance(node, ast.ClassDef):
            most_methods = RAISED_CLASSES.get(f"{name}:{node.name}", CLASS_METHODS)
            if (methods := _methods(node)) > most_methods:
                yield f"{name}:{node.lineno}: {node.name} has {methods} methods; a class may have {most_methods}"


def _length(function: _Function) -> int:
    """Return the lines from ``def`` to the end, without the docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


def _methods(node: ast.ClassDef) -> int:
    """Return the number of functions in the class's body, properties and special methods included, overloads not."""
    return sum(isinstance(statement, _Function) and not _is_overload(statement) for statement in node.body)


def _is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in function.decorator_list)


def files(root: Path) -> list[Path]:
    """Return the Python files that have a budget."""
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def check(root: Path, paths: Iterable[Path]) -> list[str]:
    """Return all excesses of ``paths``, named relative to ``root``."""
    return [line for path in paths for line in excesses(path.read_text(encoding="utf-8"), str(path.relative_to(root)))]


def main() -> int:
    """Print all excesses of this checkout; return 1 if there are any."""
    root = Path(__file__).resolve().parent.parent
    lines = check(root, files(root))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
