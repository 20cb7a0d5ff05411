"""Renews ``compose/requirements.lock``, which images install, and says whether it fits ``pyproject.toml``.

``python -m tools.lock`` renews it with uv from the package index; ``--check`` reads the two files and nothing else, so
that it works offline and says the same everywhere. ``make lock`` and ``make check`` call them.
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

#: The Pythons and machines that an image may have.
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
    direct: bool  #: whether pyproject.toml itself asks for it, and not only another package

    @property
    def name(self) -> str:
        """The package's name, as indexes spell it."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The one version that it allows, or an empty text."""
        exact = [clause.version for clause in self.requirement.specifier if clause.operator == "=="]
        return exact[0] if len(exact) == 1 and not exact[0].endswith(".*") else ""

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Return True if it is installed there."""
        return _applies(self.requirement, environment)


def asked(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """What ``pyproject.toml`` asks for: where it says so → the requirements."""
    table = project["project"]
    given = {
        "build-system.requires": project["build-system"]["requires"],
        "dependencies": table["dependencies"],
        **{f"extra {name!r}": lines for name, lines in table.get("optional-dependencies", {}).items()},
    }
    ours = canonicalize_name(table["name"])
    return {
        where: [wanted for wanted in map(Requirement, lines) if canonicalize_name(wanted.name) != ours]
        for where, lines in given.items()
    }


def locked(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """The part of :func:`asked` that images install."""
    left_out = {f"extra {name!r}" for name in AUTHORS}
    return {where: wanted for where, wanted in asked(project).items() if where not in left_out}


def pins(text: str) -> Iterator[Pin]:
    """The entries of a lock.

    Raises:
        packaging.requirements.InvalidRequirement: a line is none.
    """
    for entry in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]:
        line, _, comment = entry.replace("\\\n", " ").partition("#")
        words = " ".join(line.split())
        yield Pin(
            requirement=Requirement(words.partition(" --hash=")[0]),
            hashes=len(_HASH.findall(words)),
            direct="pyproject.toml" in comment or "via" not in comment,  # what builds us stands there without a word
        )


def unbounded(project: Mapping[str, Any]) -> Iterator[str]:
    """Say which requirements have no upper bound."""
    for where, requirements in asked(project).items():
        for wanted in requirements:
            if not _BOUNDED & {clause.operator for clause in wanted.specifier}:
                yield f"pyproject.toml: {where}: {wanted} has no upper bound: end it at its next major version"


def misfits(project: Mapping[str, Any], text: str) -> Iterator[str]:
    """Say where a lock doesn't fit ``pyproject.toml``, or can't be installed with ``--require-hashes``."""
    hosts = [line for line in text.splitlines() if "://" in line or line.startswith("-")]
    if hosts:
        yield f"{LOCK.name}: {hosts[0]!r}: a lock names no index and no address"
        return
    found = list(pins(text))
    for pin in found:
        if not pin.version or not pin.hashes:
            yield f"{LOCK.name}: {pin.requirement}: must have one version and its hashes: {_RENEW}"
    wanted = locked(project)
    names = {canonicalize_name(requirement.name) for requirements in wanted.values() for requirement in requirements}
    for pin in found:
        if pin.direct and pin.name not in names:
            yield f"{LOCK.name}: {pin.requirement}: pyproject.toml doesn't ask for it any more: {_RENEW}"
    for where, requirements in wanted.items():
        for requirement in requirements:
            yield from _unmet(where, requirement, found)


def _unmet(where: str, wanted: Requirement, found: Sequence[Pin]) -> Iterator[str]:
    of_it = [pin for pin in found if pin.name == canonicalize_name(wanted.name)]
    for environment in _environments():
        if not _applies(wanted, environment):
            continue
        here = [pin for pin in of_it if pin.applies(environment)]
        place = f"Python {environment['python_version']} on {environment['platform_machine']}"
        if len(here) != 1:
            yield f"{LOCK.name}: {where}: {wanted}: has {len(here)} versions for {place}: {_RENEW}"
            return
        pin = here[0]
        if not wanted.specifier.contains(pin.version, prereleases=True) or wanted.extras - pin.requirement.extras:
            yield f"{LOCK.name}: {where}: {wanted} isn't met by {pin.requirement}: {_RENEW}"
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
    """What renews the lock; what builds the distribution is read from standard input."""
    extras = [name for name in project["project"]["optional-dependencies"] if name not in AUTHORS]
    return [
        "uv", "pip", "compile", "pyproject.toml", "-", *(f"--extra={name}" for name in extras),
        "--universal", f"--python-version={PYTHONS[0]}", "--only-binary=:all:", "--generate-hashes", "--upgrade",
        "--no-strip-extras", "--no-emit-index-url", "--custom-compile-command=make lock", "--quiet",
        f"--output-file={LOCK.relative_to(ROOT)}",
    ]  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Renew the lock, or with ``--check`` say where it doesn't fit; 1 if it doesn't."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if list(arguments) != ["--check"]:
        program, *rest = command(project)
        build = "\n".join(project["build-system"]["requires"])
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest], cwd=ROOT, input=build, text=True, check=False
        ).returncode
    text = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    found = [*unbounded(project), *misfits(project, text)]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
