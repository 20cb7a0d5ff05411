"""Pages, docstrings and names keep the rules of prose, and the check finds what breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import prose

ROOT = Path(__file__).resolve().parents[2]


def test_the_code_keeps_the_rules() -> None:
    assert prose.check_code(ROOT) == []


def test_the_pages_keep_the_rules() -> None:
    assert prose.check_pages(ROOT) == []


@pytest.mark.parametrize("docstring", ["What is kept.", "Whether it runs.", "How\n\n    it works."])
def test_an_interrogative_is_found(docstring: str) -> None:
    source = f'def f():\n    """{docstring}"""\n'

    (fault,) = prose.interrogatives(source, "a.py")

    assert fault.startswith("a.py:1: the docstring opens with")


def test_a_statement_is_no_interrogative() -> None:
    assert list(prose.interrogatives('"""Whatever comes."""\ndef f():\n    """Return what is kept."""\n', "a.py")) == []


def test_vague_names_are_counted_where_they_are_bound() -> None:
    source = "def f(known):\n    for one in known:\n        said = one.told\n    return [what for what in said]\n"

    assert prose.vague_names(source) == {"known": 1, "one": 1, "said": 1, "what": 1}


def test_a_fault_of_a_page_is_named_by_its_line() -> None:
    page = "# Title\n\n```python\nthe the\n```\n\nSome text, then\nthe the fault, and `the the` code.\n"

    (fault,) = prose.faults_of_page(page, "a.md")

    assert fault.startswith("a.md:8: ")
