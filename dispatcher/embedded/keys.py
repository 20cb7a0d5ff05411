"""The laptop server's signing key: made once, kept in a file that its owner alone can read."""

from __future__ import annotations

import stat

from dispatcher.embedded.places import Places, write
from dispatcher.errors import InvalidSettings
from dispatcher.payload import KeyRing


def ensure(places: Places) -> None:
    """Make the key file where it is missing. The caller holds :attr:`Places.lock`.

    Raises:
        InvalidSettings: others may read it, so that they may sign in its owner's name.
    """
    try:
        mode = stat.S_IMODE(places.keys.stat().st_mode)
    except FileNotFoundError:
        write(places.keys, dict(KeyRing.generate()))
        return
    if mode & 0o077:
        raise InvalidSettings(f"{places.keys} is open to others (mode {mode:04o}): chmod 600 {places.keys}")
