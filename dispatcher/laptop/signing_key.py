"""The laptop server's signing key: made once, kept in a file that its owner alone can read."""

from __future__ import annotations

from dispatcher.errors import InvalidSettings
from dispatcher.laptop.paths import LaptopPaths, write
from dispatcher.serialization import KeyRing
from dispatcher.support import private_files


def ensure(places: LaptopPaths) -> None:
    """Make the key file where it is missing. The caller holds :attr:`LaptopPaths.lock`.

    Raises:
        InvalidSettings: others may read it, so that they may sign in its owner's name.
    """
    try:
        private_files.read(places.keys, mounted=False)
    except FileNotFoundError:
        write(places.keys, dict(KeyRing.generate()))
    except OSError as error:
        raise InvalidSettings(f"{places.keys} can't be read: {error.strerror}") from error
