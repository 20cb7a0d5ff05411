"""The directory in which the laptop server keeps its state. Its paths are in :mod:`dispatcher.laptop.paths`."""

from __future__ import annotations

import os
from pathlib import Path

from dispatcher.errors import InvalidSettings

#: What a person can do where no directory serves.
REMEDY = "set DISPATCHER__STATE_DIR or XDG_STATE_HOME to a directory of yours, or DISPATCHER__URL to a Redis"


def state_directory(configured: Path | None) -> Path:
    """Return the directory that a setting names, else the one that XDG's variables name. Creates nothing.

    Raises:
        InvalidSettings: there is no home directory, and no setting names another one.
    """
    if configured is not None:
        return configured.expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # by the XDG specification, relative paths are ignored
        return Path(base, "dispatcher")
    try:
        return Path.home().absolute() / ".local/state/dispatcher"
    except RuntimeError:
        raise InvalidSettings(f"there is no home directory; {REMEDY}") from None
