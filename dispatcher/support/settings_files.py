"""Checks of the settings in a configuration file, and paths in it. Used by :mod:`dispatcher.settings` only. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dispatcher.errors import InvalidSettings
from dispatcher.support.config_file import ConfigFile, meant
from dispatcher.support.escaping import shown
from dispatcher.support.settings_errors import is_secret, model_of
from dispatcher.support.urls import redacted


def check(file: ConfigFile, model: type[BaseModel]) -> None:
    """Check the names of a file's settings, and that it holds no secret that others can read.

    Raises:
        InvalidSettings: a name isn't a setting's, or a secret stands in a file that others can read; names the remedy.
    """
    for name in file.settings:
        if name not in model.model_fields:
            problem = f"{file.path}: {shown(name)} isn't a setting{meant(name, model.model_fields)}"
            raise InvalidSettings(f"{problem} (see the settings page)")
    if file.secret_problem and (place := _secret_in(file.settings, model)):
        raise InvalidSettings(f"{file.path}: {place} holds a secret, and {file.secret_problem}")


def resolved(values: Mapping[str, Any], model: type[BaseModel], folder: Path) -> dict[str, Any]:
    """Return the values, with paths relative to ``folder`` made absolute, and ``~`` as the user's directory."""
    made = dict(values)
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        if isinstance(value, dict) and (group := model_of(field)) is not None:
            made[name] = resolved(value, group, folder)
        elif isinstance(value, str) and field.annotation in (Path, Path | None):
            made[name] = str(folder / Path(value).expanduser())
    return made


def _secret_in(values: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> str:
    """Return the place of a value that may be secret; empty if there is none. A URL without a password is none."""
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        if isinstance(value, dict) and (group := model_of(field)) is not None:
            if place := _secret_in(value, group, f"{prefix}{name}."):
                return place
        elif is_secret(field) and not (isinstance(value, str) and redacted(value) == value):
            return f"{prefix}{name}"
    return ""
