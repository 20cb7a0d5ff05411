"""Checks of what people read: the pages by proselint, and docstrings and names by rules of our own.

Called by ``make check`` and a test. The rules are those of CONTRIBUTING: a docstring opens with an imperative or a noun
phrase, and a name says what it holds.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from proselint.checks import __register__
from proselint.config import DEFAULT, Config
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

PACKAGES = ("dispatcher", "backends", "workers", "benchmarks", "examples", "tests", "tools")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")

#: Words that open a question. A docstring states something.
INTERROGATIVES = frozenset({"What", "Whether", "How", "Which", "Who", "Where"})

#: Names that don't say what they hold, and how often the packages may bind one of them.
VAGUE = frozenset({"one", "found", "known", "what", "given", "kept", "seen", "said", "told"})
MOST_VAGUE = 20

#: Quotation marks, dashes and signs as a keyboard has them are right in pages about code.
_CONFIG: Config = {**DEFAULT, "checks": {**DEFAULT["checks"], "typography": False}}

_FENCE = re.compile(r"^(?P<indent> *)```.*?^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]+`")


def interrogatives(source: str, name: str) -> Iterator[str]:
    """Name each docstring that opens with an interrogative."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words and words[0] in INTERROGATIVES:
                line = getattr(node, "lineno", 1)
                yield f"{name}:{line}: the docstring opens with {words[0]!r}; say what it does or is"


def vague_names(source: str) -> Counter[str]:
    """Count the names of ``VAGUE`` that assignments, loops and parameters bind."""
    tree = ast.parse(source)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return Counter(name for name in names if name in VAGUE)


def prose_of(page: str) -> str:
    """Blank out the code of a Markdown page; its lines stay where they are."""
    page = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page)
    return _INLINE.sub("`code`", page)


def faults_of_page(page: str, name: str) -> Iterator[str]:
    """Name what proselint finds in the paragraphs of a page."""
    _register()
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", prose_of(page)):
        if paragraph.strip():
            for result in LintFile(name, paragraph).lint(_CONFIG):
                check, message = result.check_result.check_path, result.check_result.message
                yield f"{name}:{line + result.pos[0] - 1}: {message} ({check})"
        line += paragraph.count("\n")


@cache
def _register() -> None:
    CheckRegistry().register_many(__register__)


def check_code(root: Path) -> list[str]:
    """Check docstrings and names of the packages under ``root``."""
    faults: list[str] = []
    vague: Counter[str] = Counter()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        faults += interrogatives(source, str(path.relative_to(root)))
        vague += vague_names(source)
    if vague.total() > MOST_VAGUE:
        faults.append(f"{vague.total()} vague names, at most {MOST_VAGUE}: {dict(vague.most_common())}")
    return faults


def check_pages(root: Path) -> list[str]:
    """Check the pages under ``root``."""
    return [
        fault
        for path in _pages(root)
        for fault in faults_of_page(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
    ]


def _pages(root: Path) -> Iterable[Path]:
    for page in PAGES:
        path = root / page
        yield from sorted(path.rglob("*.md")) if path.is_dir() else [path]


def main() -> int:
    """Print all faults of this checkout; 1 if there are any."""
    root = Path(__file__).resolve().parent.parent
    faults = [*check_code(root), *check_pages(root)]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
