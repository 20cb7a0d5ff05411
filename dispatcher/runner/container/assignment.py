"""The assignment of a runner in a container: read once from its variables and, where one is mounted, its file of
secrets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from dispatcher.errors import InvalidSettings
from dispatcher.serialization.seals import AttemptSeal
from dispatcher.serialization.signing_keys import AttemptCredentials
from dispatcher.support.ids import is_attempt, is_run_id, is_shard
from dispatcher.support.urls import as_user

_PREFIX = "DISPATCHER__RUN__"
_URL = "DISPATCHER__URL"
_USER, _PASSWORD = f"{_PREFIX}USER", f"{_PREFIX}PASSWORD"
_SECRETS = (_URL, _USER, _PASSWORD, f"{_PREFIX}SEAL", f"{_PREFIX}SPEC", f"{_PREFIX}TOKEN")
_FILE = f"{_PREFIX}SECRETS_FILE"


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt, as its worker assigned it to this process.

    ``url`` is the records' server, ``shard`` the inbox to report to, ``holder`` names this very start of a process,
    ``words`` is the file for its last words, or empty.
    """

    run_id: str
    attempt: int
    shard: str
    url: str = field(repr=False)
    credentials: AttemptCredentials
    token: str = field(repr=False)
    holder: str
    words: str = ""

    @classmethod
    def take(cls, variables: MutableMapping[str, str], *, nonce: str) -> Assignment:
        """Read the variables that the worker set, and remove the secrets: the flow has no use for them.

        Args:
            variables: this process's.
            nonce: of this start of a process.

        Raises:
            InvalidSettings: one is missing or wrong; this program is started by a backend, not by hand.
        """
        given = {**variables, **_secrets(variables.get(_FILE))}
        for name in _SECRETS:
            variables.pop(name, None)
        try:
            found = {name: given[_PREFIX + name] for name in ("ID", "ATTEMPT", "SHARD", "SEAL", "SPEC", "TOKEN")}
            _check_forms(found)
            run_id, attempt = found["ID"], int(found["ATTEMPT"])
            return cls(
                run_id=run_id,
                attempt=attempt,
                shard=found["SHARD"],
                url=_url(given),
                credentials=AttemptCredentials(
                    AttemptSeal(run_id, attempt, bytes.fromhex(found["SEAL"])), found["SPEC"]
                ),
                token=found["TOKEN"],
                holder=f"{given.get(_PREFIX + 'UID') or f'{socket.gethostname()}:{os.getpid()}'}:{nonce}",
                words=given.get(f"{_PREFIX}LAST_WORDS", ""),
            )
        except KeyError as error:
            raise InvalidSettings(f"{error.args[0]}: not set; a backend starts this program, not a person") from None
        except ValueError as error:
            raise InvalidSettings(f"{_PREFIX}SEAL: {error}") from None


def _url(given: Mapping[str, str]) -> str:
    """Return the URL of the records; as the attempt's own user, if it has one."""
    if not given.get(_USER):
        return given[_URL]
    return as_user(given[_URL], given[_USER], given[_PASSWORD])


def _check_forms(found: Mapping[str, str]) -> None:
    number = found["ATTEMPT"]
    if not is_run_id(found["ID"]):
        raise InvalidSettings(f"{_PREFIX}ID: must be a run's id, got {found['ID']!r}")
    if not number.isascii() or not number.isdigit() or not is_attempt(int(number[:10])):
        raise InvalidSettings(f"{_PREFIX}ATTEMPT: must be the number of an attempt, got {number!r}")
    if not is_shard(found["SHARD"]):
        raise InvalidSettings(f"{_PREFIX}SHARD: must be a shard's name, such as kubernetes/3, got {found['SHARD']!r}")


def _secrets(path: str | None) -> Mapping[str, str]:
    """The file's variables, JSON; none without a file."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib in a runner's start
            found = json.load(file)
    except OSError as error:
        raise InvalidSettings(f"{_FILE}: {path} can't be read: {error.strerror}") from None
    except ValueError:
        raise InvalidSettings(f"{_FILE}: {path} isn't JSON") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidSettings(f"{_FILE}: {path} isn't a JSON object of texts")
    return found
