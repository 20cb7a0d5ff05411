"""The checks of ``dispatcher doctor --backend processes``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from dispatcher.inspection.finding import Finding, ok, problem
from dispatcher_processes.settings import ProcessSettings


def examine(settings: ProcessSettings) -> Iterator[Finding]:
    """Check the folder, and whether the interpreter has the runner."""
    directory = settings.directory
    if directory is None:
        return
    if directory.is_dir() and os.access(directory, os.W_OK):
        yield ok("directory", f"{directory} can be written")
    else:
        yield problem("directory", f"{directory} is no folder that this user can write", f"mkdir -p {directory}")
    command = [str(settings.python), "-P", "-c", "import dispatcher.runner"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        yield problem("python", f"{settings.python}: {error.strerror}", "correct DISPATCHER__PROCESSES__PYTHON")
        return
    if done.returncode:
        reason = (done.stderr.splitlines() or ["it failed"])[-1]
        yield problem("python", f"{settings.python}: {reason}", "install flow-dispatcher for it")
    else:
        yield ok("python", f"{settings.python} has the runner")
