"""All failpoints, found by reading the source: adding a call adds its cases."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dispatcher", "backends", "workers")


def found(root: Path = ROOT) -> Counter[str]:
    """Names of all failpoints, and how often each is passed to a call.

    Raises:
        ValueError: a call whose name is no literal.
    """
    names: Counter[str] = Counter()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                    if not node.args or not isinstance(node.args[0], ast.Constant):
                        raise ValueError(f"{path}:{node.lineno}: a failpoint's name must be a literal")
                    names[str(node.args[0].value)] += 1
    return names
