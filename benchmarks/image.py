"""The project's runner image, built from this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TAG = "flow-dispatcher-runner:bench"


def build(tag: str = TAG, *, extras: str = "", install: str = "") -> str:
    """Build the image and return its name in the Docker engine.

    Args:
        tag: its name.
        extras: extras of the distribution, such as ``[dask]``.
        install: further packages, from the package index.

    Raises:
        CalledProcessError: the build failed.
    """
    named = os.environ.get("DISPATCHER_TEST_BASE_IMAGE") or os.environ.get("CLUSTER_BASE_IMAGE")
    base = named or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    root = Path(__file__).resolve().parent.parent
    command = ["docker", "build", "-q", "--network", "host", "--build-arg", f"BASE={base}", "-t", tag]
    command += ["--build-arg", f"EXTRAS={extras}", "--build-arg", f"INSTALL={install}"]
    subprocess.run(
        [*command, "-f", str(root / "compose/Dockerfile"), str(root)],
        check=True, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    return tag
