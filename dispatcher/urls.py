"""Addresses of Redis and Valkey servers. Pure; records, doorbells and the client read the same forms here.

=============  ========================================================================================
``redis://``   ``redis://[user[:password]@]host[:6379][/db]``
``rediss://``  the same over TLS; options ``ssl_cert_reqs``, ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``,
               ``ssl_check_hostname``; without them the server's certificate is checked
``unix://``    ``unix://[user[:password]@]/path/of/socket[?db=0]``
``sentinel://``  ``sentinel://[user[:password]@]host[:26379][,host[:26379] …]/service[/db]``; options ``ssl=true`` with
               those of TLS, ``sentinel_username`` and ``sentinel_password`` for the Sentinels themselves
``memory://``  no server: each flow runs in the submitting process
=============  ========================================================================================

Special characters of a user name or password are percent-encoded; ``;`` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from dispatcher.errors import InvalidSettings

MEMORY = "memory://"
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "unix": 0}
_FORMS = "redis://, rediss://, unix://, sentinel:// or memory://"


@dataclass(frozen=True, kw_only=True)
class Address:
    """A server's address in its parts. ``path`` is a Unix socket's, ``service`` the master's name at its Sentinels."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "rediss" or self.options.get("ssl", "").lower() in {"true", "1", "yes"}

    @property
    def shown(self) -> str:
        """The address for people: no credentials, no options."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        if self.scheme == "unix":
            return f"unix://{self.path}?db={self.db}"
        return f"{self.scheme}://{hosts}/{self.service + '/' if self.service else ''}{self.db}"


def shown(url: str) -> str:
    """``url`` for people, without credentials."""
    return url if url.startswith(MEMORY) else parse(url).shown


def parse(url: str) -> Address:
    """The parts of ``url``.

    Raises:
        InvalidSettings: it isn't one of the forms above; credentials aren't repeated in the message.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise InvalidSettings(f"URL: scheme {parts.scheme!r} isn't known; use {_FORMS}")
    username, password, place = _userinfo(parts.netloc)
    options = dict(parse_qsl(parts.query))
    common = {
        "scheme": parts.scheme,
        "username": username or options.pop("username", None),
        "password": password or options.pop("password", None),
    }
    if parts.scheme == "unix":
        path = unquote(place + parts.path)
        if not path.startswith("/"):
            raise InvalidSettings("URL: unix:// needs the absolute path of a socket, as in unix:///run/redis.sock?db=0")
        return Address(**common, path=path, db=_db(options.pop("db", "")), options=options)  # type: ignore[arg-type]
    segments = [unquote(part) for part in parts.path.split("/") if part]
    service = ""
    if parts.scheme == "sentinel":
        if not segments:
            raise InvalidSettings("URL: sentinel:// needs the service's name, as in sentinel://host:26379/mymaster/0")
        service = segments.pop(0)
    db = _db(options.pop("db", "") or (segments[0] if segments else ""))
    hosts = tuple(_host(one, _PORTS[parts.scheme]) for one in place.split(","))
    return Address(**common, hosts=hosts, service=service, db=db, options=options)  # type: ignore[arg-type]


def _userinfo(netloc: str) -> tuple[str | None, str | None, str]:
    info, _, place = netloc.rpartition("@")
    username, _, password = info.partition(":")
    return unquote(username) or None, unquote(password) or None, place


def _host(place: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        return parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise InvalidSettings(f"URL: {place!r} isn't a host and port") from None


def _db(text: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise InvalidSettings(f"URL: the database must be a number, got {text!r}") from None
