"""Check parameters against a flow's annotations, where these are simple: built-in types, their containers and unions.

Values are checked, never converted: a flow gets what was submitted. Any other annotation is left unchecked.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union
from weakref import WeakKeyDictionary

from pydantic import AfterValidator, Field, Strict, TypeAdapter, ValidationError

from dispatcher.errors import InvalidParameters
from dispatcher.support.escaping import shown

#: Built-in type → the types whose values pass for it. NumPy's numbers are registered with those of :mod:`numbers`.
_SCALARS: Mapping[Any, tuple[type, ...]] = {
    int: (Integral,),
    float: (Real,),
    str: (str,),
    bytes: (bytes, bytearray),
    bool: (bool,),
}
_CONTAINERS = (list, tuple, set, frozenset, dict, Sequence, Mapping)
_UNIONS = (Union, types.UnionType)


@dataclass(frozen=True)
class _Check:
    """The check of one parameter: its annotation as text, and pydantic's validator of it."""

    annotation: str
    adapter: TypeAdapter[Any]

    def problem(self, name: str, value: Any) -> str:
        """Return what is wrong with a value; empty if nothing is."""
        try:
            self.adapter.validate_python(value)
        except ValidationError as error:
            return f"parameter {name!r} must be {self.annotation}, got {shown(value)}{_item(error, value)}"
        return ""


# Function → its checks by parameter. A function that a process makes anew for each submit isn't kept.
_checks: WeakKeyDictionary[Callable[..., Any], Mapping[str, _Check]] = WeakKeyDictionary()


def check_types(fn: Callable[..., Any], values: Mapping[str, Any], *, subject: str) -> None:
    """Check values against the annotations of their parameters.

    Args:
        fn: the function.
        values: parameters by name, which fit its signature.
        subject: name of the function in messages.

    Raises:
        InvalidParameters: some don't fit; names each parameter, its annotation and the value.
    """
    checks = _checks.get(fn)
    if checks is None:
        checks = _checks[fn] = dict(_checks_of(fn))
    if not checks:
        return
    problems = [check.problem(name, values[name]) for name, check in checks.items() if name in values]
    if any(problems):
        raise InvalidParameters(
            f"{subject}: {'; '.join(filter(None, problems))}. DISPATCHER__DEFAULTS__CHECK_TYPES=false accepts any type"
        )


def _checks_of(fn: Callable[..., Any]) -> Iterator[tuple[str, _Check]]:
    try:
        hints = typing.get_type_hints(fn)
    except Exception:  # names that exist for type checkers only, or code in an annotation
        return
    for name, parameter in inspect.signature(fn).parameters.items():
        if name not in hints or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        checked = _checked_type(hints[name])
        if checked is Any:
            continue
        if parameter.default is None:  # "x: int = None" means an optional one
            checked = Union[checked, None]  # noqa: UP007 - not every annotation has an operator
        yield name, _Check(inspect.formatannotation(hints[name]), TypeAdapter(checked))


def _checked_type(annotation: Any) -> Any:
    """Return the type to validate for an annotation; ``Any`` if the annotation isn't simple."""
    if annotation is None or annotation is type(None):
        return None
    if isinstance(annotation, type) and annotation in _SCALARS:
        other = Annotated[Any, AfterValidator(partial(_check_scalar, _SCALARS[annotation]))]
        # pydantic's own check first: a function of ours per item of a large list would take seconds
        return Annotated[Union[Annotated[annotation, Strict()], other], Field(union_mode="left_to_right")]  # noqa: UP007
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal or annotation in _CONTAINERS:
        return annotation
    if origin is Annotated:
        return _checked_type(arguments[0])
    if origin not in (*_UNIONS, *_CONTAINERS):
        return Any
    parts = tuple(part if part is ... else _checked_type(part) for part in arguments)
    if origin in _UNIONS:
        return Any if Any in parts else Union[parts]  # noqa: UP007 - of a tuple
    return origin[parts]


def _check_scalar(accepted: tuple[type, ...], value: Any) -> Any:
    numpy_bool = bool in accepted and type(value).__name__ in {"bool", "bool_"}
    if not numpy_bool and not isinstance(value, accepted):
        raise ValueError
    return value


def _item(error: ValidationError, value: Any) -> str:
    """Return which item of a container is wrong; empty if the value isn't a flat container."""
    first = error.errors(include_url=False, include_context=False)[0]
    if not first["loc"] or not isinstance(value, list | tuple | dict):
        return ""
    key = first["loc"][0]
    items = value if isinstance(value, dict) else dict(enumerate(value))
    return f" (item {key!r} is {shown(items[key])})" if key in items else ""
