"""The assignment of a runner in a container, read once from its variables and from its secrets file, if one is mounted.

Used by the child process (:mod:`dispatcher.runner.container.child`) and by the parent's crash report.
"""

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

    ``url`` is the records' server, ``shard`` the inbox for reports. ``holder`` identifies this start of a process.
    ``message_path`` is the file of the termination message, or empty.
    """

    run_id: str
    attempt: int
    shard: str
    url: str = field(repr=False)
    credentials: AttemptCredentials
    token: str = field(repr=False)
    holder: str
    message_path: str = ""

    @classmethod
    def take(cls, variables: MutableMapping[str, str], *, nonce: str) -> Assignment:
        """Read the variables that the worker set, and remove the secrets, because the flow must not see them.

        Args:
            variables: the variables of this process.
            nonce: identifies this start of a process.

        Raises:
            InvalidSettings: a variable is missing or wrong.
        """
        values = {**variables, **_secrets(variables.get(_FILE))}
        for name in _SECRETS:
            variables.pop(name, None)
        try:
            fields = {name: values[_PREFIX + name] for name in ("ID", "ATTEMPT", "SHARD", "SEAL", "SPEC", "TOKEN")}
            _check_forms(fields)
            run_id, attempt = fields["ID"], int(fields["ATTEMPT"])
            return cls(
                run_id=run_id,
                attempt=attempt,
                shard=fields["SHARD"],
                url=_url(values),
                credentials=AttemptCredentials(
                    AttemptSeal(run_id, attempt, bytes.fromhex(fields["SEAL"])), fields["SPEC"]
                ),
                token=fields["TOKEN"],
                holder=f"{values.get(_PREFIX + 'UID') or f'{socket.gethostname()}:{os.getpid()}'}:{nonce}",
                message_path=values.get(f"{_PREFIX}LAST_WORDS", ""),
            )
        except KeyError as error:
            raise InvalidSettings(
                f"{error.args[0]}: not set; only a backend can start this program, not a person"
            ) from None
        except ValueError as error:
            raise InvalidSettings(f"{_PREFIX}SEAL: {error}") from None


def _url(values: Mapping[str, str]) -> str:
    """Return the URL of the records, with the attempt's own user if it has one."""
    if not values.get(_USER):
        return values[_URL]
    return as_user(values[_URL], values[_USER], values[_PASSWORD])


def _check_forms(fields: Mapping[str, str]) -> None:
    number = fields["ATTEMPT"]
    if not is_run_id(fields["ID"]):
        raise InvalidSettings(f"{_PREFIX}ID: must be a run's id, got {fields['ID']!r}")
    if not number.isascii() or not number.isdigit() or not is_attempt(int(number[:10])):
        raise InvalidSettings(f"{_PREFIX}ATTEMPT: must be the number of an attempt, got {number!r}")
    if not is_shard(fields["SHARD"]):
        raise InvalidSettings(f"{_PREFIX}SHARD: must be a shard's name, such as kubernetes/3, got {fields['SHARD']!r}")


def _secrets(path: str | None) -> Mapping[str, str]:
    """Return the variables of the secrets file, which is JSON; none without a file."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - no pathlib in a runner's start
            secrets = json.load(file)
    except OSError as error:
        raise InvalidSettings(f"{_FILE}: {path} can't be read: {error.strerror}") from None
    except ValueError:
        raise InvalidSettings(f"{_FILE}: {path} isn't JSON") from None
    if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
        raise InvalidSettings(f"{_FILE}: {path} isn't a JSON object of strings")
    return secrets
