"""Bounds of the environment variables of a Linux process. Pure; used where people give variables for containers."""

from __future__ import annotations

#: Most bytes of ``NAME=value`` with the NUL that ends it: the kernel's MAX_ARG_STRLEN. More can't be started.
MOST = 131_072


def value_problem(name: str, value: str) -> str | None:
    """Return why a variable can't have this value; None if it can. The value isn't repeated."""
    if "\0" in value:
        return "must have no NUL character"
    try:
        size = len(f"{name}={value}".encode()) + 1
    except UnicodeEncodeError:
        return "must be text that UTF-8 can encode, without lone surrogates"
    if size > MOST:
        return (
            f"is too large: with its name it has {size:,} bytes, and Linux takes {MOST:,} (use a parameter or a file)"
        )
    return None
