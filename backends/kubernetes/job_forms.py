"""Forms of names and amounts in a Job, as the API server has them. Used by :mod:`backends.kubernetes.job_rules`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dispatcher.support.escaping import shown

#: The pattern of a whole text, its most characters, and its description for messages.
Form = tuple[re.Pattern[str], int, str]

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PLAIN = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
DNS_LABEL: Form = (re.compile(_PART), 63, "a DNS label (lower-case letters, digits and -, at most 63)")
DNS_NAME: Form = (re.compile(rf"{_PART}(\.{_PART})*"), 253, "a DNS name (lower-case letters, digits, - and .)")
LABEL_VALUE: Form = (
    re.compile(rf"({_PLAIN})?"),
    63,
    "a label's value (ASCII letters, digits, -, _ and ., at most 63)",
)
QUALIFIED: Form = (re.compile(_PLAIN), 63, "a name like example.org/name (ASCII letters, digits, -, _ and .)")
PORT_NAME: Form = (
    re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?"), 15,
    "a port's name (lower-case letters, digits and -, at most 15)",
)  # fmt: skip
VARIABLE: Form = (re.compile(r"[ -<>-~]+"), 10**6, "a variable's name (printable ASCII without =)")
KEY: Form = (re.compile(r"(?!\.$|\.\.)[-._a-zA-Z0-9]+"), 253, "a key (ASCII letters, digits, -, _ and .)")
IMAGE: Form = (re.compile(r"(?!\s).*(?<!\s)", re.DOTALL), 10**6, "an image's name (without blanks around it)")
RELATIVE: Form = (re.compile(r"(?!/)(?!(.*/)?\.\.(/|$)).*", re.DOTALL), 10**6, "a relative path without ..")
BELOW: Form = (re.compile(r"(?!/)(?!\.\.)(?!(.*/)?\.\.(/|$)).+", re.DOTALL), 10**6, "a relative path without ..")
NO_BACKSTEPS: Form = (re.compile(r"(?!(.*/)?\.\.(/|$)).*", re.DOTALL), 10**6, "a path without ..")
QUANTITY: Form = (
    re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"), 10**6,
    "an amount like 2, 500m or 2Gi",
)  # fmt: skip
HEADER: Form = (re.compile(r"[-A-Za-z0-9]+"), 10**6, "a header's name (ASCII letters, digits and -)")
SYSCTL: Form = (
    re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"), 253, "a sysctl's name",
)  # fmt: skip
RESOURCE: Form = (
    re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-.+)"), 253,
    "limits or requests, a dot and cpu, memory, ephemeral-storage or hugepages-SIZE",
)  # fmt: skip
FIELD: Form = (
    re.compile(
        r"metadata\.(name|namespace|uid|labels|annotations|(labels|annotations)\['.+'\])"
        r"|spec\.(nodeName|serviceAccountName)|status\.(hostIP|hostIPs|podIP|podIPs)"
    ),
    10**6, "a field that a container can be given, like metadata.name or status.podIP",
)  # fmt: skip


def fits(text: str, form: Form) -> bool:
    """Return True if a text has a form."""
    pattern, longest, _ = form
    return len(text) <= longest and pattern.fullmatch(text) is not None


def is_qualified(name: str) -> bool:
    """Return True if a name may be that of a label or annotation: with or without a domain before a slash."""
    prefix, slash, own = name.rpartition("/")
    return fits(own, QUALIFIED) and (not slash or fits(prefix, DNS_NAME))


_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTPE")
}


def amount_of(amount: Any) -> float | None:
    """Return an amount like ``500m`` as a number; None if it is none."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)", str(amount))
    if amount is None or match is None or match[2] not in _SUFFIXES.keys() | {""}:
        return None
    try:
        return float(match[1]) * _SUFFIXES.get(match[2], 1.0)
    except (ValueError, OverflowError):
        return None


def amount_problems(amount: Any) -> Iterator[str]:
    """Yield what is wrong with an amount."""
    if amount is None:
        return
    if not fits(str(amount), QUANTITY):
        yield f"must be {QUANTITY[2]}, got {shown(amount)}"
    elif str(amount).startswith("-"):
        yield f"can't be negative, got {shown(amount)}"


def size_problems(amount: Any) -> Iterator[str]:
    """Yield what is wrong with an amount of bytes: a small one in thousandths of a byte, which a server takes.

    Large ones are what servers themselves compute.
    """
    number = amount_of(amount)
    if isinstance(amount, str) and amount.endswith("m") and number is not None and number < 2**20:
        yield f"{shown(amount)} is in thousandths of a byte; did you mean {amount[:-1]}Mi?"
