"""The configuration file ``dispatcher.toml``: settings, profiles of them, and named environments.

Found and read here, used by :mod:`dispatcher.settings` and :mod:`dispatcher.environments.named`. It lies in the current
directory or in the user's folder for configuration; ``DISPATCHER__CONFIG`` names another one. Only one is read.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dispatcher.errors import InvalidSettings
from dispatcher.support import private_files
from dispatcher.support.escaping import escaped, shown

NAME = "dispatcher.toml"

#: Names another file; empty: none is read.
CONFIG = "DISPATCHER__CONFIG"

#: Names one of the file's profiles.
PROFILE = "DISPATCHER__PROFILE"

#: Characters of a word for which a near one is looked for.
_LONGEST_WORD = 100

_ENVIRONMENTS, _PROFILES = "environments", "profiles"


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """The content of a configuration file, for one profile.

    Attributes:
        path: the file; None if there is none.
        settings: tables and values as :class:`~dispatcher.settings.Settings` names them, not checked yet.
        environments: the fields of each named environment, likewise.
        profile: the profile chosen; empty if none is.
        secret_problem: why the file may hold no secret, with the remedy; empty if it may.
    """

    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, Any] = field(default_factory=dict)
    profile: str = ""
    secret_problem: str = ""

    @property
    def folder(self) -> Path:
        """The folder to which paths in the file are relative."""
        return Path.cwd() if self.path is None else self.path.parent

    def has(self, path: list[str]) -> bool:
        """Return True if the file sets something at a path of settings."""
        value: Any = self.settings
        for name in path:
            if not isinstance(value, Mapping) or name not in value:
                return False
            value = value[name]
        return True


def current() -> ConfigFile:
    """Return the file that counts here and now; an empty one if there is none.

    Raises:
        InvalidSettings: it can't be read, isn't TOML, or others may change it; or it lacks the profile that
            ``DISPATCHER__PROFILE`` names.
    """
    path, profile = find(), os.environ.get(PROFILE, "")
    if path is None:
        if profile:
            raise InvalidSettings(f"{PROFILE}={profile}: there is no {NAME}; `dispatcher init` writes one")
        return ConfigFile()
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidSettings(f"{path} can't be read: {error.strerror}") from None
    return _read(path, profile, (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid))


def find() -> Path | None:
    """Return the path of the file that counts; None if there is none.

    Raises:
        InvalidSettings: the file that ``DISPATCHER__CONFIG`` names doesn't exist, or this user may not see it.
    """
    named = os.environ.get(CONFIG)
    if named is not None:
        if not named:
            return None
        path = Path(named).expanduser().absolute()
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise InvalidSettings(f"{CONFIG}={named} can't be read: {error.strerror}") from None
        raise InvalidSettings(f"{CONFIG}={named}: there is no such file")
    return next((path for path in (_here(), user_file()) if path is not None and _is_file(path)), None)


def _is_file(path: Path) -> bool:
    """Return True for a file that this user can see. A service's home directory is often another user's."""
    try:
        return path.is_file()
    except OSError:
        return False


def user_file() -> Path | None:
    """Return where the user's own file would be; None without a home directory."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    if folder.is_absolute():
        return folder / "dispatcher" / NAME
    try:
        return Path.home() / ".config" / "dispatcher" / NAME
    except RuntimeError:
        return None


def _here() -> Path | None:
    try:
        return Path.cwd() / NAME
    except OSError:  # the directory was removed
        return None


@lru_cache(maxsize=8)
def _read(path: Path, profile: str, _version: tuple[int, ...]) -> ConfigFile:
    import tomllib  # most programs have no such file

    try:
        content, secret_problem = private_files.read_with_problem(path)
        data = tomllib.loads(content.decode())
    except OSError as error:
        raise InvalidSettings(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidSettings(f"{path}: isn't TOML: {escaped(str(error))}") from None
    environments = _table(data.pop(_ENVIRONMENTS, {}), f"{path}: {_ENVIRONMENTS}")
    profiles = _table(data.pop(_PROFILES, {}), f"{path}: {_PROFILES}")
    if profile:
        if profile not in profiles:
            others = f"{meant(profile, profiles)} (known: {', '.join(sorted(profiles)) or 'none'})"
            raise InvalidSettings(f"{PROFILE}={profile}: {path} has no such profile{others}")
        chosen = dict(_table(profiles[profile], f"{path}: {_PROFILES}.{profile}"))
        environments = {**environments, **_table(chosen.pop(_ENVIRONMENTS, {}), f"{path}: {_PROFILES}.{profile}")}
        data = _merged(data, chosen)
    return ConfigFile(
        path=path, settings=data, environments=environments, profile=profile, secret_problem=secret_problem
    )


def meant(word: str, choices: Iterable[str]) -> str:
    """Return the question whether another word was meant; empty if none is near."""
    near = difflib.get_close_matches(word.lower(), list(choices), n=1) if len(word) <= _LONGEST_WORD else []
    return f"; did you mean {near[0]}?" if near else ""


def _table(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSettings(f"{place}: must be a table, got {shown(value)}")
    return value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one table laid over another one."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged
