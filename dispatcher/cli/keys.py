"""``keygen``: make a signing key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dispatcher.cli import completions
from dispatcher.cli.common import common
from dispatcher.cli.terminal import Painted, echo, print_json_line
from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.support import private_files
from dispatcher.support.atomic_files import write_atomically
from dispatcher.support.escaping import shown


@click.command()
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write to (mode 0600); default: print it.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=completions.backends,
    help="Backend that its runs may use; repeatable. Default: all.",
)
@click.option(
    "--records", is_flag=True, help="Make a key for workers only: it seals what they store, and signs no run."
)
@common
def keygen(path: Path | None, backends: tuple[str, ...], records: bool) -> None:
    """Make a signing key, as JSON: key id → secret.

    Clients and workers of one installation need the same keys: in DISPATCHER__SIGNING_KEYS, or in a file that
    DISPATCHER__SIGNING_KEYS_FILE names. The first key signs; all are accepted. To rotate keys, put the new one first
    for the workers, then for the clients, and remove the old one once the runs that it signed are gone. --file puts the
    new key before those of an existing file.

    The workers' file restricts the use of a key: --backend limits the runs that it signed to backends, and --records
    makes a key that clients don't need.
    """
    if backends and records:
        raise InvalidInput("--records: such a key seals what workers of all backends store; leave out --backend")
    for name in backends:
        _warn_unknown(name)
    new_keys = _generate(backends, records)
    if path is None:
        print_json_line(new_keys)
        return
    try:
        if problem := private_files.location_problem(path):
            raise InvalidInput(f"--file: {problem}")
        existing = _read(path)
        text = json.dumps({**new_keys, **existing}, indent=2)
        write_atomically(path, f"{text}\n".encode(), mode=0o600)
    except OSError as error:
        raise InvalidInput(f"--file: {path}: {error.strerror}") from error
    verb = "added first to" if existing else "written to"
    echo(f"key {next(iter(new_keys))} {verb} {path}; set DISPATCHER__SIGNING_KEYS_FILE={path.resolve()}")


def _warn_unknown(backend: str) -> None:
    """Warn of an unknown backend, but accept it: another installation may have it."""
    from dispatcher import registry

    names = registry.BACKENDS.names()
    if backend not in names:
        problem = f"no such backend in this environment; known: {', '.join(names)}"
        echo(Painted("warning:", "yellow"), f" --backend {shown(backend)}: {problem}", err=True)


def _generate(backends: tuple[str, ...], records: bool) -> dict[str, Any]:
    from dispatcher.serialization import KeyRing
    from dispatcher.serialization.signing_keys import RECORDS

    [(key_id, secret)] = KeyRing.generate().items()
    if records:
        return {key_id: {"secret": secret, "use": RECORDS}}
    return {key_id: {"secret": secret, "backends": sorted(set(backends))}} if backends else {key_id: secret}


def _read(path: Path) -> dict[str, Any]:
    """Return the keys of an existing file; empty if there is none."""
    from dispatcher.serialization.signing_keys import read_key_file

    try:
        keys = read_key_file(path)
    except FileNotFoundError:
        return {}
    except InvalidSettings as error:
        raise InvalidInput(f"--file: {error}; or name another file") from None
    if not all(isinstance(entry, str | dict) for entry in keys.values()):
        raise InvalidInput(f"--file: {path} holds something else than signing keys; name another file")
    return keys
