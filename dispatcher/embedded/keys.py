"""The laptop server's signing key: made once, kept in a file that its owner alone can read."""

from __future__ import annotations

import stat

from dispatcher import private
from dispatcher.embedded.places import Places, write
from dispatcher.errors import InvalidSettings
from dispatcher.payload import KeyRing


def ensure(places: Places) -> None:
    """Make the key file where it is missing. The caller holds :attr:`Places.lock`.

    Raises:
        InvalidSettings: others may read it, so that they may sign in its owner's name.
    """
    try:
        private.read(places.keys)
        mode = stat.S_IMODE(places.keys.stat().st_mode)
        if mode & 0o077:  # nobody mounted it: it was made here, and closed
            raise InvalidSettings(f"{places.keys} (mode {mode:04o}) is open to others: chmod 600 {places.keys}")
    except FileNotFoundError:
        write(places.keys, dict(KeyRing.generate()))
    except OSError as error:
        raise InvalidSettings(f"{places.keys} can't be read: {error.strerror}") from error
