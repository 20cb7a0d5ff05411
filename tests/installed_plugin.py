"""The distribution in ``tests/plugin``, installed apart from the environment of the tests."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import PYTHON

SOURCE = Path(__file__).parent / "plugin"


@dataclass(frozen=True)
class Plugin:
    """The directory in which it is installed."""

    target: Path

    @property
    def variables(self) -> dict[str, str]:
        """Variables with which a program finds it."""
        paths = [str(self.target), str(SOURCE.parent.parent), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@cache
def installed() -> Plugin:
    """Build it and install it into a folder, once per process and without the package index."""
    target = Path(tempfile.mkdtemp(prefix="dsp-plugin-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    uv = str(Path(PYTHON).with_name("uv"))
    options = ["--offline", "--no-deps", "--no-cache", "--target", str(target), "--python", PYTHON]
    done = subprocess.run(
        [uv, "pip", "install", *options, str(SOURCE)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return Plugin(target)
