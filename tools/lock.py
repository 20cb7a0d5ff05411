"""Renew ``compose/requirements.lock``, which images install, or check that it matches ``pyproject.toml``.

``python -m tools.lock`` (``make lock``) renews it with uv from the package index. ``--check`` (``make check``) reads
only the two files, so that it works offline and gives the same result everywhere.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "compose" / "requirements.lock"

#: The Python versions and machines that the lock must support.
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")

#: The extras of those who change the code, or write backends of their own; no image has them.
AUTHORS = frozenset({"dev", "testing"})

_BOUNDED = frozenset({"<", "<=", "==", "~="})
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}(?= |$)")
_RENEW = "run `make lock`"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """An entry of the lock: one version of a package, and the files that may be installed for it."""

    requirement: Requirement
    hashes: int
    direct: bool  #: True if pyproject.toml itself requires it, and not only another package

    @property
    def name(self) -> str:
        """The package's name in the spelling of indexes."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The one version that it allows, or an empty text."""
        exact = [clause.version for clause in self.requirement.specifier if clause.operator == "=="]
        return exact[0] if len(exact) == 1 and not exact[0].endswith(".*") else ""

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Return True if the package is installed in an environment."""
        return _applies(self.requirement, environment)


def requirements_of(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """Return the requirements in ``pyproject.toml``, by their place in it."""
    table = project["project"]
    places = {
        "build-system.requires": project["build-system"]["requires"],
        "dependencies": table["dependencies"],
        **{f"extra {name!r}": lines for name, lines in table.get("optional-dependencies", {}).items()},
    }
    ours = canonicalize_name(table["name"])
    return {
        place: [requirement for requirement in map(Requirement, lines) if canonicalize_name(requirement.name) != ours]
        for place, lines in places.items()
    }


def locked_requirements(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """Return the part of :func:`requirements_of` that images install."""
    left_out = {f"extra {name!r}" for name in AUTHORS}
    return {place: requirements for place, requirements in requirements_of(project).items() if place not in left_out}


def pins(text: str) -> Iterator[Pin]:
    """Yield the entries of a lock.

    Raises:
        packaging.requirements.InvalidRequirement: a line isn't a requirement.
    """
    for entry in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]:
        line, _, comment = entry.replace("\\\n", " ").partition("#")
        words = " ".join(line.split())
        yield Pin(
            requirement=Requirement(words.partition(" --hash=")[0]),
            hashes=len(_HASH.findall(words)),
            direct="pyproject.toml" in comment or "via" not in comment,  # build requirements have no comment
        )


def unbounded(project: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each requirement without an upper bound."""
    for place, requirements in requirements_of(project).items():
        for requirement in requirements:
            if not _BOUNDED & {clause.operator for clause in requirement.specifier}:
                yield f"pyproject.toml: {place}: {requirement} has no upper bound: end it at its next major version"


def mismatches(project: Mapping[str, Any], text: str) -> Iterator[str]:
    """Yield a message for each mismatch of a lock and ``pyproject.toml``, and each obstacle to ``--require-hashes``."""
    addresses = [line for line in text.splitlines() if "://" in line or line.startswith("-")]
    if addresses:
        yield f"{LOCK.name}: {addresses[0]!r}: a lock names no index and no address"
        return
    locked = list(pins(text))
    for pin in locked:
        if not pin.version or not pin.hashes:
            yield f"{LOCK.name}: {pin.requirement}: must have one version and its hashes: {_RENEW}"
    places = locked_requirements(project)
    names = {canonicalize_name(requirement.name) for requirements in places.values() for requirement in requirements}
    for pin in locked:
        if pin.direct and pin.name not in names:
            yield f"{LOCK.name}: {pin.requirement}: pyproject.toml doesn't require it any more: {_RENEW}"
    for place, requirements in places.items():
        for requirement in requirements:
            yield from _unmet(place, requirement, locked)


def _unmet(place: str, requirement: Requirement, locked: Sequence[Pin]) -> Iterator[str]:
    candidates = [pin for pin in locked if pin.name == canonicalize_name(requirement.name)]
    for environment in _environments():
        if not _applies(requirement, environment):
            continue
        applicable = [pin for pin in candidates if pin.applies(environment)]
        platform = f"Python {environment['python_version']} on {environment['platform_machine']}"
        if len(applicable) != 1:
            yield f"{LOCK.name}: {place}: {requirement}: has {len(applicable)} versions for {platform}: {_RENEW}"
            return
        [pin] = applicable
        accepted = requirement.specifier.contains(pin.version, prereleases=True)
        if not accepted or requirement.extras - pin.requirement.extras:
            yield f"{LOCK.name}: {place}: {requirement} isn't met by {pin.requirement}: {_RENEW}"
            return


def _applies(requirement: Requirement, environment: Mapping[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""})


def _environments() -> Iterator[dict[str, str]]:
    for python in PYTHONS:
        for machine in MACHINES:
            yield {
                "python_version": python,
                "python_full_version": f"{python}.99",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
                "platform_machine": machine,
                "platform_system": "Linux",
                "sys_platform": "linux",
                "os_name": "posix",
            }


def command(project: Mapping[str, Any]) -> list[str]:
    """Return the command that renews the lock. It reads the build requirements from standard input."""
    extras = [name for name in project["project"]["optional-dependencies"] if name not in AUTHORS]
    return [
        "uv", "pip", "compile", "pyproject.toml", "-", *(f"--extra={name}" for name in extras),
        "--universal", f"--python-version={PYTHONS[0]}", "--only-binary=:all:", "--generate-hashes", "--upgrade",
        "--no-strip-extras", "--no-emit-index-url", "--custom-compile-command=make lock", "--quiet",
        f"--output-file={LOCK.relative_to(ROOT)}",
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Renew the lock, or with ``--check`` print where it doesn't match and return 1."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if list(arguments) != ["--check"]:
        program, *rest = command(project)
        build = "\n".join(project["build-system"]["requires"])
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest], cwd=ROOT, input=build, text=True, check=False
        ).returncode
    text = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    messages = [*unbounded(project), *mismatches(project, text)]
    sys.stdout.write("".join(f"{message}\n" for message in messages))
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
