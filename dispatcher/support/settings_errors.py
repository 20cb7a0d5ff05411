"""Messages for settings with a wrong value: the variable, its value unless that may be secret, and an example.

Used by :mod:`dispatcher.settings` only.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dispatcher.support.config_file import ConfigFile
from dispatcher.support.escaping import shown
from dispatcher.support.json_documents import DuplicateKey

_PREFIX = "DISPATCHER__"

#: Parts of a URL, which may have been given to the wrong variable.
_URL_MARKS = ("://", "@")

# pydantic's names of JSON lists and objects.
_CLASSES = re.compile(r"a valid (?:(frozenset|tuple|list)|dictionary(?: or instance of \w+)?)")


class NotJson(ValueError):
    """A variable doesn't hold valid JSON.

    Args:
        text: its value.
        reason: the problem, for people; empty if it isn't JSON at all.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(reason)
        self.text = text
        self.reason = reason


def explain(error: ValidationError, model: type[BaseModel], file: ConfigFile | None = None) -> str:
    """Describe all wrong values in one line. ``file`` is the configuration file that was read, too."""
    problems = [_problem(problem, model, file) for problem in error.errors(include_url=False)]
    return "; ".join(problems) + " (see the settings page, or `dispatcher doctor`)"


def explain_json(error: BaseException, model: type[BaseModel]) -> str:
    """Describe a value that isn't JSON. Pydantic names only the top field; the variable is the one with that text."""
    cause = error.__cause__
    text, reason = (cause.text, cause.reason) if isinstance(cause, NotJson) else (None, "")
    top = next((name for name in model.model_fields if f'"{name}"' in str(error)), "")
    variables = [name for name in sorted(os.environ) if f"{name.upper()}__".startswith(f"{_PREFIX}{top.upper()}__")]
    exact = [name for name in variables if os.environ[name] == text] or variables or [f"{_PREFIX}{top.upper()}"]
    place = exact[0].upper().removeprefix(_PREFIX).lower().split("__")
    _, field, rest = _field(place, model)
    value = f", got {shown(text)}" if text is not None and not reason and _may_be_shown(field, rest, text) else ""
    problem = reason or f"must be JSON{value}"
    return f"{' or '.join(exact)}: {problem}{_example(place, field, rest)} (see the settings page)"


def _problem(problem: Any, model: type[BaseModel], file: ConfigFile | None) -> str:
    path = [str(part) for part in problem["loc"]]
    group, field, rest = _field(path, model)
    place = path if field is None else [*group, *rest]
    in_file = file is not None and file.has(group or path) and not _is_variable(group or path)
    name = f"{file.path}: {'.'.join(place)}" if file is not None and in_file else _variable(place)
    if problem["type"] == "extra_forbidden":
        names = [] if field is not None else _names(group, model)
        near = difflib.get_close_matches(path[-1].lower(), names, n=1)
        other = [*group, *near]
        meant = f"; did you mean {'.'.join(other) if in_file else _variable(other)}?" if near else ""
        return f"{name}: isn't a setting{meant}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    text = _CLASSES.sub(lambda match: "a JSON list" if match[1] else "a JSON object", text)
    value = f", got {shown(problem['input'])}" if _may_be_shown(field, rest, problem["input"]) else ""
    return f"{name}: {text}{value}{'' if in_file else _example(path, field, rest)}"


def _variable(path: Iterable[str]) -> str:
    return _PREFIX + "__".join(path).upper()


def _is_variable(path: list[str]) -> bool:
    """Return True if a variable sets what is at this path, or a part of it."""
    name = _variable(path)
    return any(f"{variable.upper()}__".startswith(f"{name}__") for variable in os.environ)


def _names(group: Iterable[str], model: type[BaseModel]) -> list[str]:
    """Return the names of the settings of a group."""
    for name in group:
        model = model_of(model.model_fields[name]) or model
    return list(model.model_fields)


def _field(path: list[str], model: type[BaseModel]) -> tuple[list[str], FieldInfo | None, list[str]]:
    """Follow a path as far as it names settings. Return that part, the setting (None for a group), and the rest."""
    current: type[BaseModel] | None = model
    for index, name in enumerate(path):
        if current is None or name not in current.model_fields:
            return path[:index], None, path[index:]
        field = current.model_fields[name]
        current = model_of(field)
        if current is None:
            return path[: index + 1], field, path[index + 1 :]
    return path, None, []


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of a group of settings; None for a single setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _may_be_shown(field: FieldInfo | None, rest: list[str], value: object) -> bool:
    of_url = any(mark in str(value) for mark in _URL_MARKS)
    return field is not None and not rest and not of_url and not is_secret(field)


def is_secret(field: FieldInfo) -> bool:
    """Return True if a setting is marked by :data:`dispatcher.settings.SECRET`."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def _example(path: list[str], field: FieldInfo | None, rest: list[str]) -> str:
    if field is None or rest:
        return ""
    value = field.examples[0] if field.examples else field.get_default(call_default_factory=True)
    if value in (None, "", {}, frozenset()):
        return ""
    return f"; for example {_PREFIX}{'__'.join(path).upper()}={_shell_value(value)}"


def _shell_value(value: Any) -> str:
    """Return a value as it is written in a shell."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, frozenset | tuple):
        value = sorted(value)
    text = json.dumps(value)
    return f"'{text}'" if isinstance(value, list | dict) else text


def once(text: object) -> object:
    """Return ``text`` unless it is JSON with a duplicate key.

    Raises:
        DuplicateKey: it is.
    """
    from dispatcher.support.json_documents import read_document

    if isinstance(text, str | bytes):
        try:
            read_document(text)
        except DuplicateKey:
            raise
        except (ValueError, RecursionError):
            pass  # pydantic has a better message
    return text
