"""Error messages for failures of the server, with its address and never with credentials."""

from __future__ import annotations

import re
import socket
import ssl

import redis

from dispatcher.errors import ServerUnavailable

_CHECK = "check DISPATCHER__URL, or `dispatcher doctor`"

# The error of a server that is too old for functions.
_TOO_OLD = re.compile(r"unknown command [`'](FCALL|FUNCTION)[`']")


class ServerBusy(redis.ResponseError):
    """A script has run for so long that the server refuses commands. ``executed`` tells if it executed some of them."""

    def __init__(self, message: str, *, executed: bool) -> None:
        super().__init__(message)
        self.executed = executed


#: Errors after which a command is sent again.
LOST = (redis.ConnectionError, redis.TimeoutError, OSError, ServerBusy)

#: Of them, those that pass by themselves: commands are sent again until it is too late.
PASSING = (redis.BusyLoadingError, ServerBusy)

#: Of them, those for which a retry doesn't help.
HOPELESS = (redis.AuthenticationError, redis.exceptions.AuthorizationError)


class NotLoaded(redis.ResponseError):
    """The server lacks this release's functions, and this user may not load them. The text is their library's name."""


#: Errors about missing rights: a retry with the same user doesn't help.
DENIED = (*HOPELESS, redis.exceptions.NoPermissionError, NotLoaded)

#: Messages for refused commands, by the error's class or the first word of its text.
_REFUSALS: tuple[tuple[type[Exception] | str, str], ...] = (
    (redis.exceptions.OutOfMemoryError, "has no memory left for it (maxmemory); raise the limit, or remove runs"),
    (
        redis.exceptions.NoPermissionError,
        "does not allow it to this user; check DISPATCHER__URL (the page on security says what each user may)",
    ),
    (
        NotLoaded,
        "lacks this release's functions, and this user may not load them; start a worker of this release, or run "
        "`dispatcher admin install` with an administrator's URL",
    ),
    (redis.ReadOnlyError, "is a read-only replica; use the address of the primary"),
    (redis.BusyLoadingError, "is still loading its data; try again in a moment"),
    (redis.exceptions.MasterDownError, "is a replica that has lost its primary"),
    ("MISCONF", "can't write its data to disk, and refuses changes until it can"),
    ("NOREPLICAS", "has too few replicas, and refuses changes until they are back"),
    ("BUSY", "was busy with a script all the time; try again in a moment, or ask its administrator"),
)


def is_missing(reply: object) -> bool:
    """Return True if the server lacks the function that was called."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("Function not found")


def is_busy(reply: object) -> bool:
    """Return True if the server refused a command because a script has run for long."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("BUSY ")


def is_wrong_type(reply: object) -> bool:
    """Return True if a reply says that a key holds another type than the command expects."""
    return isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE")


# Errors about a single key or value, which say nothing about the server.
_OF_AN_ENTRY = re.compile(
    r"WRONGTYPE |(ERR )?(hash )?value is not (an integer|a valid float|a float)|(ERR )?\S+ or \S+ would overflow"
    r"|(ERR )?The (stream has exhausted|ID specified in XADD)|(ERR )?user_function:\d+: (?!.*ACL failure)"
)


def is_of_an_entry(reply: object) -> bool:
    """Return True if a reply says that the value of a key is one that the command or function can't handle."""
    return type(reply) is redis.ResponseError and _OF_AN_ENTRY.match(str(reply)) is not None


def unavailable(error: Exception, address: str, *, timeout: float, may_exist: bool = False) -> ServerUnavailable:
    """Return the error for users.

    Args:
        error: raised by redis-py.
        address: of the server, without credentials.
        timeout: seconds that a command may take.
        may_exist: true if a submit had been sent.
    """
    message = f"{_message(error, address, timeout)}{_may_exist_note(may_exist)}"
    return ServerUnavailable(message, may_exist=may_exist, denied=isinstance(error, DENIED))


def _may_exist_note(may_exist: bool) -> str:
    if not may_exist:
        return ""
    return "; the run may exist: submit again with the same idempotency_key, or look at `dispatcher list`"


def _message(error: Exception, address: str, timeout: float) -> str:
    if isinstance(error, redis.AuthenticationError):
        return f"{address} refuses the user name or the password; {_CHECK}"
    for kind, text in _REFUSALS:
        if str(error).startswith(f"{kind} ") if isinstance(kind, str) else isinstance(error, kind):
            return f"{address} {text}"
    if isinstance(error, redis.TimeoutError):
        return f"{address} did not answer within {timeout:g} s; {_CHECK}"
    if isinstance(error, redis.InvalidResponse):
        return f"the server at {address} is not Redis or Valkey; {_CHECK}"
    if _TOO_OLD.match(str(error)):
        return f"{address} is too old: Redis 7.0 or Valkey 7.2 is needed"
    if isinstance(error, redis.ResponseError):
        return f"{address} refused a command: {_without_arguments(str(error))}"
    return _connection_message(error, address)


def _connection_message(error: Exception, address: str) -> str:
    """Return the message for a connection that failed or broke."""
    cause = error.__cause__ or error.__context__
    match cause:
        case socket.gaierror():
            return f"the host name of {address} can't be resolved; {_CHECK}"
        case ConnectionRefusedError():
            return f"nothing listens at {address} (connection refused); start the server, or {_CHECK}"
        case FileNotFoundError():
            return f"there is no socket at {address}; start the server, or {_CHECK}"
        case PermissionError():
            return f"permission denied to open the socket at {address}"
        case ssl.SSLError():
            return f"the TLS connection to {address} failed: {cause.reason or cause}; {_CHECK}"
    if isinstance(error, redis.sentinel.MasterNotFoundError):
        return f"no Sentinel of {address} names a primary for that service; {_CHECK}"
    return f"the connection to {address} broke: {_without_arguments(str(error)) or type(error).__name__}"


def _without_arguments(text: str) -> str:
    """Return the server's message without the arguments of the command, which may be secret."""
    return text.split(", with args", 1)[0].rstrip(".")
