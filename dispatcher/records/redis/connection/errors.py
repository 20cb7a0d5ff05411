"""Errors of the server, in words for people, with the address and never with credentials."""

from __future__ import annotations

import re
import socket
import ssl

import redis

from dispatcher.errors import ServerUnavailable

_CHECK = "check DISPATCHER__URL, or `dispatcher doctor`"

# How a server says that it doesn't know functions.
_OLD = re.compile(r"unknown command [`'](FCALL|FUNCTION)[`']")

#: A command that met one of these is sent again.
LOST = (redis.ConnectionError, redis.TimeoutError, OSError)

#: Of them, those that another try doesn't help.
HOPELESS = (redis.AuthenticationError, redis.exceptions.AuthorizationError)


class NotLoaded(redis.ResponseError):
    """The server lacks this release's functions, and this user may not load them. Its text is their library's name."""


#: Those that say what the user may not: another try, with the same user, doesn't help.
DENIED = (*HOPELESS, redis.exceptions.NoPermissionError, NotLoaded)

#: What the server is like when it refuses a command: by the error's class, or by the word that its text begins with.
_REFUSALS: tuple[tuple[type[Exception] | str, str], ...] = (
    (redis.exceptions.OutOfMemoryError, "has no memory left for it (maxmemory); raise the limit, or remove runs"),
    (
        redis.exceptions.NoPermissionError,
        "does not allow it to this user; check DISPATCHER__URL (the page on security says what each user may)",
    ),
    (
        NotLoaded,
        "lacks this release's functions, which this user may not load; start a worker of this release, or run "
        "`dispatcher admin install` with an administrator's URL",
    ),
    (redis.ReadOnlyError, "is a read-only replica; use the address of the primary"),
    (redis.BusyLoadingError, "is still loading its data; try again in a moment"),
    (redis.exceptions.MasterDownError, "is a replica that has lost its primary"),
    ("MISCONF", "can't write its data to disk, and refuses changes until it can"),
    ("NOREPLICAS", "has too few replicas, and refuses changes until they are back"),
    ("BUSY", "is busy with a script; try again in a moment"),
)


def is_missing(reply: object) -> bool:
    """Return True if the server doesn't know the function that was called."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("Function not found")


def is_wrong_type(reply: object) -> bool:
    """Return True if a reply says that a key holds another type than the command is for."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE")


# What a command or a function says of one key, or of one value in it, and of nothing else on the server.
_OF_AN_ENTRY = re.compile(
    r"WRONGTYPE |(ERR )?(hash )?value is not (an integer|a valid float|a float)|(ERR )?\S+ or \S+ would overflow"
    r"|(ERR )?The (stream has exhausted|ID specified in XADD)|(ERR )?user_function:\d+: (?!.*ACL failure)"
)


def is_of_an_entry(reply: object) -> bool:
    """Return True if a reply says that what stands under one key is nothing that the command, or a function, can deal
    with."""
    return type(reply) is redis.ResponseError and _OF_AN_ENTRY.match(str(reply)) is not None


def unavailable(error: Exception, address: str, *, timeout: float, may_exist: bool = False) -> ServerUnavailable:
    """The error for users.

    Args:
        error: what redis-py raised.
        address: the server's, without credentials.
        timeout: seconds that a command may take.
        may_exist: whether a submit had been sent.
    """
    said = f"{_said(error, address, timeout)}{_tail(may_exist)}"
    return ServerUnavailable(said, may_exist=may_exist, denied=isinstance(error, DENIED))


def _tail(may_exist: bool) -> str:
    if not may_exist:
        return ""
    return "; the run may exist: submit again with the same idempotency_key, or look at `dispatcher list`"


def _said(error: Exception, address: str, timeout: float) -> str:
    if isinstance(error, redis.AuthenticationError):
        return f"{address} refuses the user name or the password; {_CHECK}"
    for known, words in _REFUSALS:
        if str(error).startswith(f"{known} ") if isinstance(known, str) else isinstance(error, known):
            return f"{address} {words}"
    if isinstance(error, redis.TimeoutError):
        return f"{address} did not answer within {timeout:g} s; {_CHECK}"
    if isinstance(error, redis.InvalidResponse):
        return f"what answers at {address} is no Redis or Valkey server; {_CHECK}"
    if _OLD.match(str(error)):
        return f"{address} is too old: Redis 7.0 or Valkey 7.2 is the least that will do"
    if isinstance(error, redis.ResponseError):
        return f"{address} refused a command: {_without_arguments(str(error))}"
    return _unreached(error, address)


def _unreached(error: Exception, address: str) -> str:
    """No connection, or one that broke."""
    below = error.__cause__ or error.__context__
    match below:
        case socket.gaierror():
            return f"the host name of {address} isn't known; {_CHECK}"
        case ConnectionRefusedError():
            return f"nothing listens at {address} (connection refused); start the server, or {_CHECK}"
        case FileNotFoundError():
            return f"there is no socket at {address}; start the server, or {_CHECK}"
        case PermissionError():
            return f"no right to open the socket at {address}"
        case ssl.SSLError():
            return f"no TLS with {address}: {below.reason or below}; {_CHECK}"
    if isinstance(error, redis.sentinel.MasterNotFoundError):
        return f"no Sentinel of {address} names a primary for that service; {_CHECK}"
    return f"the connection to {address} broke: {_without_arguments(str(error)) or type(error).__name__}"


def _without_arguments(text: str) -> str:
    """A server's message without the arguments of the command, which may be secret."""
    return text.split(", with args", 1)[0].rstrip(".")
