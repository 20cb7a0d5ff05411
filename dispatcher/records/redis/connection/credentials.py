"""User name and password of a Redis user, apart from the server's address, so that no URL shows them."""

from __future__ import annotations

import redis


class RedisCredentials(redis.CredentialProvider):
    """The user name and password of a connection. It shows nowhere: not in a repr, not in JSON, not in a pickle.

    Args:
        username: a Redis user's name; None or empty: the default user.
        password: its password.
    """

    def __init__(self, username: str | None, password: str | None) -> None:
        self._username = username or ""
        self._password = password or ""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """As redis-py asks for them."""
        return (self._username, self._password) if self._username else (self._password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same."""
        return self.get_credentials()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisCredentials) and self.get_credentials() == other.get_credentials()

    def __hash__(self) -> int:
        return hash(self.get_credentials())

    def __repr__(self) -> str:
        return "Credentials(**)"

    def __json__(self) -> str:
        """Return what Celery's remote control tells of them."""
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("Credentials are secret and can't be pickled: read the settings in each process")
