"""Installs packages in the first stage of an image of flows. Sent there by :mod:`dispatcher.storage.docker.image`.

This file runs by itself, in a folder with pip and our wheel, because the image may have nothing but Python. It installs
into :data:`TARGET`, which the final stage copies; other files that pip writes stay in the first stage.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Where packages lie in an image: ``site-packages`` and ``bin`` below it.
TARGET = Path("/opt/flow-packages")

#: A requirement of our own package: its extras, and what it says of the release before a marker.
_OURS = re.compile(r"flow[-_.]+dispatcher\s*(\[[^]]*\])?\s*(?P<release>[^;]*?)\s*(;.*)?", re.IGNORECASE)


def lacks_dispatcher() -> bool:
    """Return True if this Python can't import our runner."""
    try:
        import_module("dispatcher.runner.container.child")
    except ImportError:
        return True
    return False


def install(requirements: Sequence[str], prefix: Path) -> int:
    """Install below ``prefix`` the requirements that the image doesn't fulfil, and return pip's exit status."""
    options = ["--no-cache-dir", "--disable-pip-version-check", "--no-warn-script-location"]
    command = [sys.executable, str(HERE / "pip"), "install", *options, "--root-user-action=ignore"]
    return subprocess.run([*command, f"--prefix={prefix}", *requirements], check=False).returncode


def gather(prefix: Path, target: Path) -> None:
    """Copy installed packages to the same folders in every image, whatever the distribution calls its own."""
    for root in (prefix, prefix / "local"):
        for packages in root.glob("lib*/python*/*-packages"):
            shutil.copytree(packages, target / "site-packages", symlinks=True, dirs_exist_ok=True)
        for folder in ("bin", "share"):
            if (root / folder).is_dir():
                shutil.copytree(root / folder, target / folder, symlinks=True, dirs_exist_ok=True)


def requirements_of(wheel: str, cloudpickle: str, dependencies: Sequence[str], *, lacks: bool) -> list[str]:
    """Return what is installed. Our package is this wheel, and never its name, which an index may have of others.

    Only a dependency that names a release of ours, or an address, is left to pip.

    Args:
        wheel: path of our wheel.
        cloudpickle: requirement of the version that sealed the flows.
        dependencies: the user's.
        lacks: the image has no runner.
    """
    ours = [match["release"] for text in dependencies if (match := _OURS.fullmatch(text.strip())) is not None]
    if any(ours):
        return [*([cloudpickle] if lacks else ()), *dependencies]
    return [*([wheel] if lacks or ours else ()), *([cloudpickle] if lacks else ()), *dependencies]


def main(wheel: str, cloudpickle: str, dependencies: Sequence[str], target: Path = TARGET) -> int:
    """Install ``dependencies``, and our package if the image has no runner. Return pip's exit status."""
    target.mkdir(parents=True, exist_ok=True)
    requirements = requirements_of(wheel, cloudpickle, dependencies, lacks=lacks_dispatcher())
    if not requirements:
        return 0
    prefix = HERE / "prefix"
    status = install(requirements, prefix)
    if status == 0:
        gather(prefix, target)
    return status


if __name__ == "__main__":
    wheel, cloudpickle, *dependencies = sys.argv[1:]
    sys.exit(main(str(HERE / wheel), cloudpickle, dependencies))
