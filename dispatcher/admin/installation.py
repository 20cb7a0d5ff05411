"""Checks of this environment for ``dispatcher doctor``: Python, packages, and what each extra brings."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from dispatcher.inspection.finding import Finding, ok, problem, warning
from dispatcher.registry import DISTRIBUTION
from dispatcher.support.own_packages import ROOT

#: The oldest Python that this release runs on.
OLDEST_PYTHON = (3, 11)

_PACKAGES = ("celery", "kombu", "redis", "cloudpickle")
#: Extras that only authors need.
_FOR_AUTHORS = frozenset({"dev", "testing"})


def installation() -> Iterator[Finding]:
    """Check Python, packages and extras of this environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield ok("python", f"{version} in {sys.prefix}")
    else:
        yield problem("python", f"{version} is too old", f"use Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later")
    yield ok(
        "packages", ", ".join(f"{name} {_version(name) or 'not installed'}" for name in (DISTRIBUTION, *_PACKAGES))
    )
    for extra, packages in extras().items():
        yield _extra(extra, packages)
    for package in ("backends", "workers"):
        yield from _shadowed(package)


def extras() -> dict[str, list[str]]:
    """Return the packages that each extra of our distribution brings, as its metadata say."""
    try:
        names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    return {name: _packages(DISTRIBUTION, name) for name in names if name not in _FOR_AUTHORS}


def _packages(distribution: str, extra: str) -> list[str]:
    """Return the packages that an extra brings; with them those of extras that it names of installed packages."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    packages = []
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": extra}) or marker.evaluate({"extra": ""}):
            continue
        packages.append(requirement.name)
        for further in sorted(requirement.extras):
            packages += _packages(requirement.name, further)
    return packages


def _extra(name: str, packages: list[str]) -> Finding:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, version in versions.items() if version is None]
    if missing:
        remedy = f"if you need it: pip install '{DISTRIBUTION}[{name}]'"
        return warning("extra", f"{name}: {', '.join(missing)} not installed", remedy)
    return ok("extra", f"{name}: {', '.join(f'{package} {version}' for package, version in versions.items())}")


def _shadowed(package: str) -> Iterator[Finding]:
    spec = importlib.util.find_spec(package)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or origin.parent.parent != ROOT:
        where = origin.parent if origin is not None else "nothing"
        yield problem(
            "packages",
            f"Python finds {where} as {package!r}, in place of ours in {ROOT}",
            "rename that folder, or take it off PYTHONPATH",
        )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
