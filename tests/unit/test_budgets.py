"""The code keeps its budgets, and the check finds what breaks them."""

from __future__ import annotations

from pathlib import Path

from tools import budgets

ROOT = Path(__file__).resolve().parents[2]


def test_the_code_keeps_its_budgets() -> None:
    paths = budgets.files(ROOT)

    assert len(paths) > 20
    assert budgets.check(ROOT, paths) == []


def test_a_long_file_is_found() -> None:
    assert list(budgets.excesses("x = 1\n" * 400, "a.py")) == []
    assert list(budgets.excesses("x = 1\n" * 401, "a.py")) == ["a.py: 401 lines; a file may have 400"]


def test_a_long_function_is_found_and_its_docstring_is_free() -> None:
    body = "    x = 1\n" * 59
    docstring = '    """One\n\n    two.\n    """\n'

    assert list(budgets.excesses("def f():\n" + docstring + body, "a.py")) == []
    assert list(budgets.excesses("def f():\n" + docstring + body + "    return x\n", "a.py")) == [
        "a.py:1: f has 61 lines; a function may have 60"
    ]


def test_a_method_and_an_async_function_count_too() -> None:
    source = "class C:\n    async def f(self):\n" + "        x = 1\n" * 60

    assert [line.split(": ")[1] for line in budgets.excesses(source, "a.py")] == [
        "f has 61 lines; a function may have 60"
    ]
