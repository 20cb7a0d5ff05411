"""The distribution in ``tests/plugin``, installed apart from the environment of the tests."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import PYTHON

SOURCE = Path(__file__).parent / "plugin"


@dataclass(frozen=True)
class Plugin:
    """Where it is installed."""

    target: Path

    @property
    def variables(self) -> dict[str, str]:
        """Variables with which a program finds it."""
        paths = [str(self.target), str(SOURCE.parent.parent), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def install(target: Path) -> Plugin:
    """Build and install it into a folder, without the package index."""
    uv = str(Path(PYTHON).with_name("uv"))
    options = ["--offline", "--no-deps", "--no-cache", "--target", str(target), "--python", PYTHON]
    done = subprocess.run(
        [uv, "pip", "install", *options, str(SOURCE)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return Plugin(target)
