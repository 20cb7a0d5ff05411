"""Start detached processes: the laptop server's daemon, and workers (``python -m workers``).

They have a session of their own, no terminal, and init as their parent: they outlive the program and leave it no
zombie. The current directory is never on their import path. The package ``workers``, a layer above, is started by name.
Used by :mod:`dispatcher.laptop` and the command line.
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
from dispatcher.support.own_packages import ROOT

#: Runs in an interpreter with the import path of the new process, so that both find the same package. It prints the pid
#: of the new process, or ``not`` and the path of another package that it found.
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
_LAUNCH_TIMEOUT = 30.0
_MAX_LOG_SIZE = 10 * 2**20
_GROUPS = ("worker", "timing", "limits", "defaults")


def worker(settings: Settings, *, log: Path, cwd: Path | None = None) -> Process:
    """Start a worker with these settings. It logs to ``log`` and runs in directory ``cwd`` (default: this program's).

    Raises:
        InvalidSettings: Python would import another package named ``workers``, or can't be started.
    """
    return start_detached("workers", (), log=log, cwd=cwd or current_directory(), environ=environment(settings))


def run_worker(settings: Settings) -> int:
    """Run a worker in this process until it is stopped. Return its exit status.

    Raises:
        InvalidSettings: Python imports another package named ``workers``.
    """
    spec, home = find_spec("workers"), str(ROOT)
    origin = spec.origin if spec and spec.origin else ""
    if not origin or os.path.realpath(Path(origin).parent.parent) != home:
        raise InvalidSettings(_shadowed("workers", home, origin))
    return int(import_module("workers.bootstrap").run_worker(settings))


def environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ``environ`` (default: this process's) with its dispatcher variables replaced by ``settings``.

    Signing keys are passed by file only: whoever may inspect a process can read its variables.
    """
    replaced = {f"DISPATCHER__{name.upper()}" for name in type(settings).model_fields}
    base = os.environ if environ is None else environ
    others = {name: value for name, value in base.items() if "__".join(name.upper().split("__")[:2]) not in replaced}
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_defaults=True, exclude={"signing_keys", *_GROUPS})
    for group in _GROUPS:
        group_values = getattr(settings, group).model_dump(mode="json", exclude_defaults=True)
        values |= {f"{group}__{name}": value for name, value in group_values.items()}
    return others | {f"DISPATCHER__{name.upper()}": _text(value) for name, value in values.items()}


def start_detached(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
) -> Process:
    """Start ``python -P -m module arguments`` detached. It inherits the file descriptors ``keep``.

    Raises:
        InvalidSettings: Python would import another package of that name, or can't be started.
    """
    package, home = module.partition(".")[0], str(ROOT)
    python = sys.executable
    command = [python, "-P", "-c", _LAUNCH, package, home, python, "-P", "-m", module, *arguments]
    _rotate(log)
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
                timeout=_LAUNCH_TIMEOUT,
                check=False,
            ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidSettings(f"can't start {python} -m {module}: {error}") from error
    word, _, rest = answer.strip().partition(" ")
    if word.isdigit():
        # Process.of returns None if the process has ended already; its log tells why.
        return Process.of(int(word)) or Process(int(word), "ended")
    if word == "not":
        raise InvalidSettings(_shadowed(package, home, rest))
    raise InvalidSettings(f"can't start {python} -m {module}; see {log}")


def _shadowed(package: str, home: str, origin: str) -> str:
    other = Path(origin).parent if origin else "nothing"
    return (
        f"the worker needs the package {package!r} of flow-dispatcher in {home}, but {sys.executable} finds {other}; "
        "remove that folder from PYTHONPATH, or rename it"
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def current_directory() -> Path:
    """Return this program's directory, or the root if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


def _rotate(log: Path) -> None:
    """Rotate a long log, so that logs stay bounded."""
    try:
        if log.stat().st_size > _MAX_LOG_SIZE:
            log.replace(log.with_suffix(log.suffix + ".1"))
    except OSError:
        pass
