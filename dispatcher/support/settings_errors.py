"""A setting that has a wrong value, in words: the variable, its value unless that may be secret, and an example.

For :mod:`dispatcher.settings` alone.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dispatcher.support.escaping import shown
from dispatcher.support.json_documents import Twice

_PREFIX = "DISPATCHER__"

#: Settings whose values hold credentials, or may.
_SECRET = frozenset({"url", "broker_url", "signing_keys", "executor_kwargs"})

#: What a URL has, which somebody may have given to the wrong variable.
_OF_URLS = ("://", "@")

#: Examples of settings that have no telling default.
_EXAMPLES: Mapping[str, Any] = {
    "signing_keys": {"k1": "a secret of 16 bytes or more"},
    "labels": ["gpu", "eu"],
    "callbacks": ["flows:tidy_up"],
    "executor_kwargs": {"n_workers": 4},
    "timeout": 3600,
    "start_within": 600,
    "embedded": False,
}

# How pydantic names what JSON calls a list and an object.
_CLASSES = re.compile(r"a valid (?:(frozenset|tuple|list)|dictionary(?: or instance of \w+)?)")


class NotJson(ValueError):
    """A variable doesn't hold the JSON that it should.

    Args:
        text: what it holds.
        reason: what is wrong with it, for people; empty if it is no JSON at all.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(reason)
        self.text = text
        self.reason = reason


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Every wrong value, in one line."""
    told = [_problem(problem, model) for problem in error.errors(include_url=False)]
    return "; ".join(told) + " (see the settings page, or `dispatcher doctor`)"


def explain_json(error: BaseException, model: type[BaseModel]) -> str:
    """The same for what isn't JSON; pydantic names the field at the top only, its variables are those with the text."""
    cause = error.__cause__
    text, reason = (cause.text, cause.reason) if isinstance(cause, NotJson) else (None, "")
    top = next((name for name in model.model_fields if f'"{name}"' in str(error)), "")
    given = [name for name in sorted(os.environ) if f"{name.upper()}__".startswith(f"{_PREFIX}{top.upper()}__")]
    exact = [name for name in given if os.environ[name] == text] or given or [f"{_PREFIX}{top.upper()}"]
    place = exact[0].upper().removeprefix(_PREFIX).lower().split("__")
    _, field, rest = _field(place, model)
    value = (
        f", got {shown(text)}" if text is not None and not reason and _may_be_shown(place, field, rest, text) else ""
    )
    what = reason or f"must be JSON{value}"
    return f"{' or '.join(exact)}: {what}{_example(place, field, rest)} (see the settings page)"


def _problem(problem: Any, model: type[BaseModel]) -> str:
    path = [str(part) for part in problem["loc"]]
    known, field, rest = _field(path, model)
    name = _PREFIX + "__".join(part.upper() for part in (path if field is None else [*known, *rest]))
    if problem["type"] == "extra_forbidden":
        names = [] if field is not None else _names(known, model)
        near = difflib.get_close_matches(path[-1].lower(), names, n=1)
        meant = f"; did you mean {_PREFIX}{'__'.join([*known, near[0]]).upper()}?" if near else ""
        return f"{name}: is no setting{meant}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    text = _CLASSES.sub(lambda match: "a JSON list" if match[1] else "a JSON object", text)
    value = f", got {shown(problem['input'])}" if _may_be_shown(path, field, rest, problem["input"]) else ""
    return f"{name}: {text}{value}{_example(path, field, rest)}"


def _names(group: Iterable[str], model: type[BaseModel]) -> list[str]:
    """The settings of a group."""
    for name in group:
        model = _model_of(model.model_fields[name]) or model
    return list(model.model_fields)


def _field(path: list[str], model: type[BaseModel]) -> tuple[list[str], FieldInfo | None, list[str]]:
    """Follow a path as far as it names settings: return that part, the setting that it leads to (None if it is a
    group), and the rest."""
    current: type[BaseModel] | None = model
    for index, name in enumerate(path):
        if current is None or name not in current.model_fields:
            return path[:index], None, path[index:]
        field = current.model_fields[name]
        current = _model_of(field)
        if current is None:
            return path[: index + 1], field, path[index + 1 :]
    return path, None, []


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _may_be_shown(path: list[str], field: FieldInfo | None, rest: list[str], value: object) -> bool:
    of_url = any(mark in str(value) for mark in _OF_URLS)
    return field is not None and not rest and not of_url and not _SECRET & set(path) and not _is_secret(field)


def _is_secret(field: FieldInfo) -> bool:
    """Return True if a backend's settings mark this one by ``json_schema_extra={"secret": True}``."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def _example(path: list[str], field: FieldInfo | None, rest: list[str]) -> str:
    if field is None or rest:
        return ""
    name = path[-1]
    examples = field.examples or [_EXAMPLES.get(name, field.get_default(call_default_factory=True))]
    value = examples[0]
    if value in (None, "", {}, frozenset()):
        return ""
    return f"; for example {_PREFIX}{'__'.join(path).upper()}={_written(value)}"


def _written(value: Any) -> str:
    """A value as a shell line has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, frozenset | tuple):
        value = sorted(value)
    text = json.dumps(value)
    return f"'{text}'" if isinstance(value, list | dict) else text


def once(text: object) -> object:
    """``text`` itself, if it is no JSON that has a key twice.

    Raises:
        Twice: it is.
    """
    from dispatcher.support.json_documents import read_document

    if isinstance(text, str | bytes):
        try:
            read_document(text)
        except Twice:
            raise
        except (ValueError, RecursionError):
            pass  # pydantic says so better
    return text
