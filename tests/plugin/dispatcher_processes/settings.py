"""The settings ``DISPATCHER__PROCESSES__…``."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field

from backends.container.settings import ContainerSettings


class ProcessSettings(ContainerSettings, title="Processes"):
    """Settings of the machine that runs the processes."""

    directory: Path | None = Field(None, description="Folder that holds one folder per process. Required.")
    python: Path = Field(Path(sys.executable), description="The interpreter that runs flows.")
    niceness: int = Field(0, ge=0, le=19, description="Niceness of runs that name none.")
