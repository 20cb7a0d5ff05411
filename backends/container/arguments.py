"""Checks of the arguments that environments of containers share. Each error names the argument and the value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.support.escaping import shown
from dispatcher.support.variables import value_problem

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED = "DISPATCHER__RUN__"


def wrong(argument: str, problem: str, value: Any) -> InvalidInput:
    """Return the error of an argument; ``problem`` may end with its own "got"."""
    got = "" if problem.endswith("got") else ", got"
    return InvalidInput(f"{argument}: {problem}{got} {shown(value)}")


def check_image(image: Any, *, argument: str) -> None:
    """Check the name of an image, or None.

    Raises:
        InvalidInput: it can't be one.
    """
    if image is not None and (not isinstance(image, str) or not image or any(map(str.isspace, image))):
        raise wrong(argument, "must be an image's name", image)


def check_variables(variables: Any, *, argument: str) -> dict[str, str]:
    """Return environment variables, or references to their values, as a dictionary of its own.

    Raises:
        InvalidInput: a name or a value can't be one, or the runner uses that name itself.
    """
    if variables is None:
        return {}
    if not isinstance(variables, Mapping):
        raise wrong(argument, "must map variables to strings", variables)
    for name, value in variables.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise wrong(argument, "must map variables to strings; no variable can be called so", name)
        if name.startswith(_RESERVED):
            raise wrong(argument, "can't set the runner's own variables", name)
        if not isinstance(value, str):
            raise wrong(argument, f"must map variables to strings; {name} is", value)
        if problem := value_problem(name, value):
            raise InvalidInput(f"{argument}: {name} {problem}")
    return dict(variables)


def check_distinct(env: Mapping[str, str], secrets: Mapping[str, str], *, argument: str) -> None:
    """Check that no variable is set both plainly and by reference.

    Raises:
        InvalidInput: one is.
    """
    if both := sorted(set(env) & set(secrets)):
        raise wrong(argument, "names variables that env sets too", both)


def masked(text: str) -> str:
    """Return the beginning and length of a value given in the place of a reference: it may be the secret itself."""
    return f"{text[:2]}… ({len(text)} characters)"
