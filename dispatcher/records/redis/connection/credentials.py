"""User name and password of a Redis user, kept apart from the address so that no URL contains them."""

from __future__ import annotations

import redis


class RedisCredentials(redis.CredentialProvider):
    """User name and password of a connection. They appear in no repr, no JSON and no pickle.

    Args:
        username: of a Redis user; None or empty for the default user.
        password: of that user.
    """

    def __init__(self, username: str | None, password: str | None) -> None:
        self._username = username or ""
        self._password = password or ""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return them as redis-py expects."""
        return (self._username, self._password) if self._username else (self._password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same for redis-py's asynchronous client."""
        return self.get_credentials()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RedisCredentials) and self.get_credentials() == other.get_credentials()

    def __hash__(self) -> int:
        return hash(self.get_credentials())

    def __repr__(self) -> str:
        return "Credentials(**)"

    def __json__(self) -> str:
        """Return the representation in replies of Celery's remote control."""
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("Credentials are secret and can't be pickled: read the settings in each process")
