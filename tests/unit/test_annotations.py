"""Parameters are checked against simple annotations, and never converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest

from dispatcher.errors import InvalidParameters
from dispatcher.flows.annotations import check_types

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


def every(
    *rest: int,
    number: int = 0,
    ratio: float = 0.0,
    text: str = "",
    data: bytes = b"",
    flag: bool = False,
    items: list[int] = [],  # noqa: B006
    pair: tuple[int, str] = (0, ""),
    table: dict[str, list[float]] = {},  # noqa: B006
    either: int | str = 0,
    maybe: Optional[str] = None,  # noqa: UP045
    implied: int = None,  # type: ignore[assignment]  # noqa: RUF013
    choice: Literal["a", 1] = "a",
    noted: Annotated[int, "a note"] = 0,
    sequence: Sequence[str] = (),
    mapping: Mapping[str, int] = {},
    plain: list = [],  # type: ignore[type-arg]  # noqa: B006
    path: Path | str = "",
    anything: Any = None,
    **more: int,
) -> None: ...


def problem_of(**values: Any) -> str:
    try:
        check_types(every, values, subject="flow 'every'")
    except InvalidParameters as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "values",
    [
        {"number": 1}, {"number": True}, {"ratio": 1}, {"ratio": 1.5}, {"text": "x"}, {"data": b""},
        {"data": bytearray()}, {"flag": False}, {"items": [1, 2]}, {"items": (1, 2)}, {"items": []},
        {"pair": (1, "a")}, {"pair": [1, "a"]}, {"table": {"a": [1, 2.5]}}, {"either": 1}, {"either": "a"},
        {"maybe": None}, {"maybe": "x"}, {"implied": None}, {"choice": 1}, {"noted": 1}, {"sequence": ["a"]},
        {"mapping": {"a": 1}}, {"plain": ["a", 1]}, {"path": 3}, {"anything": object()},
        {"more": "x"}, {"rest": ["x"]},
    ],
)  # fmt: skip
def test_values_that_fit(values: dict[str, Any]) -> None:
    assert problem_of(**values) == ""


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"number": "1"}, "parameter 'number' must be int, got '1'"),
        ({"number": 1.0}, "parameter 'number' must be int, got 1.0"),
        ({"number": None}, "parameter 'number' must be int, got None"),
        ({"ratio": "1"}, "parameter 'ratio' must be float, got '1'"),
        ({"text": Path("x")}, "parameter 'text' must be str, got PosixPath('x')"),
        ({"text": b"x"}, "parameter 'text' must be str, got b'x'"),
        ({"flag": "yes"}, "parameter 'flag' must be bool, got 'yes'"),
        ({"items": "12"}, "parameter 'items' must be list[int], got '12'"),
        ({"items": [1, "a"]}, "parameter 'items' must be list[int], got [1, 'a'] (item 1 is 'a')"),
        ({"pair": (1,)}, "parameter 'pair' must be tuple[int, str], got (1,)"),
        ({"table": {"a": "b"}}, "got {'a': 'b'} (item 'a' is 'b')"),
        ({"either": 1.5}, "parameter 'either' must be int | str, got 1.5"),
        ({"maybe": 1}, "parameter 'maybe' must be Optional[str], got 1"),
        ({"implied": "x"}, "parameter 'implied' must be int, got 'x'"),
        ({"choice": "b"}, "parameter 'choice' must be Literal['a', 1], got 'b'"),
        ({"noted": "x"}, "parameter 'noted' must be"),
        ({"sequence": "abc"}, "parameter 'sequence' must be collections.abc.Sequence[str], got 'abc'"),
        ({"mapping": [1]}, "parameter 'mapping' must be collections.abc.Mapping[str, int], got [1]"),
        ({"plain": 1}, "parameter 'plain' must be list, got 1"),
    ],
)
def test_values_that_dont_fit_are_named(values: dict[str, Any], problem: str) -> None:
    message = problem_of(**values)
    assert message.startswith("flow 'every': ")
    assert problem in message
    assert message.endswith("DISPATCHER__DEFAULTS__CHECK_TYPES=false accepts any type")


def test_the_first_wrong_item_of_a_large_list_is_named() -> None:
    assert problem_of(items=list(range(300_000))) == ""
    assert "(item 7 is '7')" in problem_of(items=[*range(7), *map(str, range(7, 300_000))])


def test_a_wrong_item_in_an_item_is_shown_with_the_outer_one() -> None:
    assert "(item 'a' is [1, None])" in problem_of(table={"a": [1, None]})
    assert "(item 1 is None)" in problem_of(items=[1, None])


def test_all_problems_are_named_at_once() -> None:
    message = problem_of(number="x", text=1, flag=True)
    assert "'number'" in message
    assert "'text'" in message
    assert "'flag'" not in message


def test_numpys_scalars_pass_as_pythons() -> None:
    numpy = pytest.importorskip("numpy")
    assert problem_of(number=numpy.int64(1), ratio=numpy.float32(1), flag=numpy.bool_(True)) == ""
    assert "'number'" in problem_of(number=numpy.float64(1))


def test_annotations_that_exist_for_type_checkers_only_say_nothing() -> None:
    def later(a: Unknown, b: int) -> None: ...

    check_types(later, {"a": 1, "b": "x"}, subject="flow")
