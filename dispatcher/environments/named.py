"""Environments by name: those of the configuration file, and the defaults of every backend and class.

``environment="gpu"`` in a program and ``--on gpu`` on the command line mean the table ``[environments.gpu]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dispatcher import registry
from dispatcher.environments.base import Environment
from dispatcher.environments.callbacks import Callback
from dispatcher.errors import InvalidInput
from dispatcher.support import config_file
from dispatcher.support.config_file import ConfigFile
from dispatcher.support.escaping import shown

_MOMENTS = ("on_start", "on_exit")


def named(name: str) -> Environment:
    """Return the environment of this name: one of the configuration file, else a backend's or a class' default.

    Raises:
        InvalidInput: there is none of this name, or its table is wrong; names what is known.
        InvalidSettings: the configuration file can't be read.
    """
    file = config_file.current()
    if name in file.environments:
        return _of_table(file, name)
    if (kind := _class_of(name)) is not None:
        return _made(kind, {}, f"environment {name!r}")
    choices = names()
    problem = f"no such name{config_file.meant(name, choices)} (known: {', '.join(choices)})"
    place = config_file.NAME if file.path is None else file.path
    raise InvalidInput(f"environment {shown(name)}: {problem}; a table [environments.NAME] in {place} makes one")


def names() -> list[str]:
    """Return all names that :func:`named` knows, those of the configuration file first."""
    own = sorted(config_file.current().environments)
    return list(dict.fromkeys([*own, *registry.BACKENDS.names(), *registry.ENVIRONMENTS.names()]))


def _class_of(name: str) -> str | None:
    """Return the class that a name means, its own or its backend's; None if it means none."""
    classes = registry.ENVIRONMENTS.names()
    if name in classes:
        return name
    return next((kind for kind in classes if registry.environment(kind).backend == name), None)


def _of_table(file: ConfigFile, name: str) -> Environment:
    subject = f"{file.path}: environments.{name}"
    table = file.environments[name]
    if not isinstance(table, dict) or not isinstance(table.get("type"), str):
        raise InvalidInput(f'{subject}: must be a table with a type, such as type = "LocalEnvironment"')
    fields = {field: value for field, value in table.items() if field != "type"}
    for field, value in fields.items():
        if field in _MOMENTS:
            reference = {"ref": value} if isinstance(value, str) else value
            fields[field] = Callback.from_json(reference, subject=f"{subject}.{field}")
        elif field.endswith("_file") and isinstance(value, str):
            fields[field] = str(file.folder / Path(value).expanduser())
    return _made(_class_of(table["type"]) or table["type"], fields, subject)


def _made(kind: str, fields: Mapping[str, Any], subject: str) -> Environment:
    try:
        environment = registry.environment(kind)
        arguments = inspect.signature(environment).parameters
        if wrong := next((field for field in fields if field not in arguments), ""):
            meant = config_file.meant(wrong, arguments)
            raise InvalidInput(f"{kind} has no {shown(wrong)}{meant} (known: {', '.join(arguments)})")
        return environment(**fields)
    except InvalidInput as error:
        raise InvalidInput(f"{subject}: {error}") from error
