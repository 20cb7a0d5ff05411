"""Starts our own programs as processes of their own: the laptop server's keeper, and a worker (``python -m workers``).

They are detached: own session, no terminal, adopted by init, so that they outlive the program and leave it no zombie.
The current directory is never on their import path. This is where the package ``workers``, above ours, is reached, by
name. Who may call it: :mod:`dispatcher.laptop` and the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dispatcher.errors import InvalidSettings
from dispatcher.laptop.process import Process
from dispatcher.settings import Settings

#: Runs in an interpreter with the new process's own import path, so that it finds what that one would find. It answers
#: on its standard output with the new process's number, or with ``not`` and what it found instead.
_LAUNCH = """
import importlib.util, os, signal, sys
package, home, *command = sys.argv[1:]
spec = importlib.util.find_spec(package)
origin = spec.origin if spec and spec.origin else ""
if os.path.realpath(os.path.dirname(os.path.dirname(origin))) != home or not origin:
    print("not", origin)
    sys.exit()
pid = os.fork()
if pid:
    print(pid, flush=True)
    os._exit(0)
os.setsid()
os.dup2(2, 1)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
os.execv(command[0], command)
"""
_LAUNCH_WITHIN = 30.0
_LONGEST_LOG = 10 * 2**20
_GROUPS = ("worker", "timing", "limits", "defaults")


def worker(settings: Settings, *, log: Path, cwd: Path | None = None) -> Process:
    """Start a worker that has these settings; it writes to ``log``, in directory ``cwd`` (default: this program's).

    Raises:
        InvalidSettings: Python would find another package named ``workers`` than ours, or can't be started.
    """
    return detached("workers", (), log=log, cwd=cwd or here(), environ=environment(settings))


def run_worker(settings: Settings) -> int:
    """Be a worker, in this process, until it is told to stop; its exit status.

    Raises:
        InvalidSettings: Python finds another package named ``workers`` than ours.
    """
    spec, home = find_spec("workers"), _home()
    origin = spec.origin if spec and spec.origin else ""
    if not origin or os.path.realpath(Path(origin).parent.parent) != home:
        raise InvalidSettings(_shadowed("workers", home, origin))
    return int(import_module("workers.bootstrap").run_worker(settings))


def environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of ``environ`` (default: this process's) with ``settings`` in place of what they say of us.

    Signing keys go by file alone: whoever may look at a process may read its variables.
    """
    ours = {f"DISPATCHER__{name.upper()}" for name in Settings.model_fields}
    base = os.environ if environ is None else environ
    kept = {name: value for name, value in base.items() if "__".join(name.upper().split("__")[:2]) not in ours}
    given: dict[str, Any] = settings.model_dump(mode="json", exclude_defaults=True, exclude={"signing_keys", *_GROUPS})
    for group in _GROUPS:
        values = getattr(settings, group).model_dump(mode="json", exclude_defaults=True)
        given |= {f"{group}__{name}": value for name, value in values.items()}
    return kept | {f"DISPATCHER__{name.upper()}": _text(value) for name, value in given.items()}


def detached(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
) -> Process:
    """Start ``python -P -m module arguments`` detached; file descriptors ``keep`` stay open in it.

    Raises:
        InvalidSettings: Python would find another package of that name than ours, or can't be started.
    """
    package, home = module.partition(".")[0], _home()
    python = sys.executable
    command = [python, "-P", "-c", _LAUNCH, package, home, python, "-P", "-m", module, *arguments]
    _shorten(log)
    try:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as errors:
            answer = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env=None if environ is None else dict(environ),
                pass_fds=tuple(keep),
                start_new_session=True,
                timeout=_LAUNCH_WITHIN,
                check=False,
            ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidSettings(f"can't start {python} -m {module}: {error}") from error
    word, _, rest = answer.strip().partition(" ")
    if word.isdigit():
        # Process.of is None if it ended already: then it left nothing to watch, and its log tells why.
        return Process.of(int(word)) or Process(int(word), "ended")
    if word == "not":
        raise InvalidSettings(_shadowed(package, home, rest))
    raise InvalidSettings(f"can't start {python} -m {module}; see {log}")


def _home() -> str:
    """The directory that holds our packages."""
    return os.path.realpath(Path(__file__).parents[2])


def _shadowed(package: str, home: str, origin: str) -> str:
    where = Path(origin).parent if origin else "nothing"
    return (
        f"the worker needs the package {package!r} of flow-dispatcher in {home}, but {sys.executable} finds {where}; "
        "take that folder off PYTHONPATH, or rename it"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def here() -> Path:
    """This program's directory, or the root if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def _shorten(log: Path) -> None:
    """Put a long log aside, so that logs stay bounded."""
    try:
        if log.stat().st_size > _LONGEST_LOG:
            log.replace(log.with_suffix(log.suffix + ".1"))
    except OSError:
        pass
