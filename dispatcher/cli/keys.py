"""``keygen``: make a signing key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from dispatcher.cli.common import common
from dispatcher.cli.terminal import Painted, echo, print_json_line
from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.support import private_files
from dispatcher.support.escaping import shown
from dispatcher.support.json_documents import Twice, read_document


@click.command()
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write to (mode 0600); default: print it.",
)
@click.option("--backend", "backends", multiple=True, help="Backend that its runs may use; repeatable. Default: all.")
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
        if problem := private_files.way_to_problem(path):
            raise InvalidInput(f"--file: {problem}")
        existing = _read(path)
        _write(path, {**new_keys, **existing})
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
    try:
        kept = read_document(private_files.read(path))
    except FileNotFoundError:
        return {}
    except InvalidSettings as error:
        raise InvalidInput(f"--file: {error}") from None
    except Twice as error:
        raise InvalidInput(f"--file: {path}: {error}") from None
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict) or not all(isinstance(entry, str | dict) for entry in kept.values()):
        raise InvalidInput(f"--file: {path} exists and holds no signing keys; name another file")
    return kept


def _write(path: Path, keys: dict[str, Any]) -> None:
    """Beside the file first, so that no reader sees half of it, and never readable by others."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(keys, indent=2) + "\n")
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
