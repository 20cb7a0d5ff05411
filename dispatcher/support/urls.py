"""URLs of Redis and Valkey servers. Pure; records, broker and client share this parser.

=============  ========================================================================================
``redis://``   ``redis://[user[:password]@]host[:6379][/db]``
``rediss://``  the same over TLS; options ``ssl_cert_reqs``, ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``,
               ``ssl_check_hostname``; by default the server's certificate is checked
``unix://``    ``unix://[user[:password]@]/path/of/socket[?db=0]``
``sentinel://``  ``sentinel://[user[:password]@]host[:26379][,host[:26379] …]/service[/db]``; options ``ssl=true`` and
               those of TLS, ``sentinel_username`` and ``sentinel_password`` for the Sentinels themselves
``memory://``  no server: flows run in the submitting process
=============  ========================================================================================

Special characters of a user name or password are percent-encoded, including ``;``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from dispatcher.errors import InvalidSettings

MEMORY = "memory://"
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "unix": 0}
_FORMS = "redis://, rediss://, unix://, sentinel:// or memory://"
_TLS = ("cert_reqs", "ca_certs", "ca_path", "certfile", "keyfile", "password", "check_hostname")
_OPTIONS = frozenset(
    {"db", "username", "password", "ssl", "sentinel_username", "sentinel_password", *(f"ssl_{name}" for name in _TLS)}
)
_ENCODE = "; special characters of a user name or password are percent-encoded (/ is %2F, # %23, ? %3F, @ %40)"

_SCHEME = re.compile(r"[a-z][a-z+]{0,15}")
_INVALID = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLACE = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.%-]+)?)\]|(?P<name>[^\[\]:@\\\s]*))(?::(?P<port>[0-9]{1,5})?)?"
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed URL. ``path`` is that of a Unix socket, ``service`` the name of the primary at its Sentinels."""

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
        """Return True if the connection is encrypted."""
        return self.scheme == "rediss" or self.options.get("ssl", "").lower() in {"true", "1", "yes"}

    @property
    def sentinel_credentials(self) -> tuple[str | None, str | None]:
        """User name and password for the Sentinels themselves."""
        return self.options.get("sentinel_username"), self.options.get("sentinel_password")

    def tls_options(self) -> dict[str, Any]:
        """Return redis-py's arguments for TLS; empty if the connection isn't encrypted.

        The server's certificate is checked unless the URL says otherwise.

        Raises:
            InvalidSettings: ``ssl_cert_reqs`` has a wrong value.
        """
        import ssl

        if not self.tls:
            return {}
        arguments: dict[str, Any] = {name: value for name, value in self.options.items() if name.startswith("ssl_")}
        requirement = str(arguments.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
        levels = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
        if requirement not in levels:
            raise InvalidSettings(f"URL: ssl_cert_reqs must be required, optional or none, got {requirement!r}")
        check_hostname = str(arguments.get("ssl_check_hostname", requirement != "none")).lower()
        arguments["ssl_cert_reqs"] = levels[requirement]
        arguments["ssl_check_hostname"] = check_hostname not in {"false", "0", "no"}
        return arguments

    @property
    def shown(self) -> str:
        """The URL for people, without credentials and options."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        if self.scheme == "unix":
            return f"unix://{self.path}?db={self.db}"
        return f"{self.scheme}://{hosts}/{self.service + '/' if self.service else ''}{self.db}"


def shown(url: str) -> str:
    """Return ``url`` for people, without credentials."""
    return url if url.startswith(MEMORY) else parse(url).shown


def redacted(url: str | None) -> str | None:
    """Return ``url`` for a repr: as :func:`shown`, or ``…`` if it can't be parsed."""
    if url is None:
        return None
    try:
        return shown(url)
    except InvalidSettings:
        return "…"


def as_user(url: str, username: str, password: str) -> str:
    """Return ``url`` with other credentials."""
    scheme, _, rest = url.partition("://")
    end = next((place for place, character in enumerate(rest) if character in "/?#"), len(rest))
    userinfo = f"{quote(username, safe='')}:{quote(password, safe='')}"
    return f"{scheme}://{userinfo}@{rest[:end].rpartition('@')[2]}{rest[end:]}"


def parse(url: str) -> Address:
    """Parse ``url``.

    Raises:
        InvalidSettings: it has none of the forms above. The message repeats no part of a password, not even of one that
            an unencoded character has split.
    """
    scheme, netloc, path, query = _split(url)
    username, password, place = _userinfo(netloc)
    options = _options(query)
    from_query = {name: options.pop(name, None) for name in ("username", "password")}
    common = {
        "scheme": scheme,
        "username": username or from_query["username"],
        "password": password or from_query["password"],
    }
    if scheme == "unix":
        path = _decode(place + path)
        if not path.startswith("/"):
            raise InvalidSettings("URL: unix:// needs the absolute path of a socket, as in unix:///run/redis.sock?db=0")
        return Address(**common, path=path, db=_database(options.pop("db", "")), options=options)  # type: ignore[arg-type]
    segments = [_decode(part) for part in path.split("/") if part]
    service = ""
    if scheme == "sentinel":
        if not segments:
            raise InvalidSettings("URL: sentinel:// needs the service's name, as in sentinel://host:26379/mymaster/0")
        service = segments.pop(0)
    if len(segments) > 1:
        raise InvalidSettings(f"URL: nothing may follow the database{_ENCODE}")
    db = _database(options.pop("db", "") or "".join(segments))
    hosts = tuple(_host(part, _PORTS[scheme]) for part in place.split(","))
    if scheme != "sentinel" and len(hosts) > 1:
        raise InvalidSettings(f"URL: {scheme}:// takes one host; several are for sentinel://")
    return Address(**common, hosts=hosts, service=service, db=db, options=options)  # type: ignore[arg-type]


def _split(url: str) -> tuple[str, str, str, str]:
    """Split a URL into scheme, host part, path and query."""
    scheme, mark, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme not in _PORTS or not mark:
        shown_scheme = f"unknown scheme {scheme!r}; " if mark and _SCHEME.fullmatch(scheme) else ""
        raise InvalidSettings(f"URL: {shown_scheme}use {_FORMS}")
    if _INVALID.search(rest):
        raise InvalidSettings("URL: it contains a control character, or bytes that aren't text")
    if "#" in rest:
        raise InvalidSettings(f"URL: # isn't allowed{_ENCODE}")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    inside = "" if scheme == "unix" and not netloc else path
    if "@" in inside or "@" in query:
        raise InvalidSettings(f"URL: @ is allowed only between password and host{_ENCODE}")
    return scheme, netloc, slash + path, query


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            raise InvalidSettings(
                f"URL: after ? only {', '.join(sorted(_OPTIONS))} are allowed, as name=value{_ENCODE}"
            )
        options[name] = _decode(value.replace("+", " "))
    return {name: value for name, value in options.items() if value}


def _userinfo(netloc: str) -> tuple[str | None, str | None, str]:
    info, _, place = netloc.rpartition("@")
    username, _, password = info.partition(":")
    return _decode(username) or None, _decode(password) or None, place


def _decode(text: str) -> str:
    """Decode percent-encoded characters."""
    if _BAD_PERCENT.search(text):
        raise InvalidSettings("URL: % must be followed by two hexadecimal digits; % itself is written %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidSettings("URL: the percent-encoded bytes aren't UTF-8") from None
    if "\0" in decoded:
        raise InvalidSettings("URL: it contains a control character, or bytes that aren't text")
    return decoded


def _host(place: str, port: int) -> tuple[str, int]:
    match = _PLACE.fullmatch(place)
    number = int(match["port"] or port) if match else 0
    if match is None or (match["port"] and not 0 < number < 2**16):
        raise InvalidSettings(f"URL: invalid host or port; write host, host:port or [IPv6]:port{_ENCODE}")
    return (_decode(match["six"] or match["name"] or "") or "localhost"), number


def _database(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise InvalidSettings(f"URL: the database must be a number, as in redis://host:6379/0{_ENCODE}")
    return int(text)
