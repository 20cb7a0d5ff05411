"""``keygen``: a new signing key."""

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
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write here (mode 0600) instead.")
@click.option("--backend", "backends", multiple=True, help="A backend that its runs may use; else all. Repeatable.")
@click.option("--records", is_flag=True, help="For the workers alone: seals what they store. Signs no run.")
@common
def keygen(path: Path | None, backends: tuple[str, ...], records: bool) -> None:
    """Make a signing key, as JSON: key id → secret.

    Clients and workers of one installation need the same keys: as DISPATCHER__SIGNING_KEYS, or as a file named by
    DISPATCHER__SIGNING_KEYS_FILE. The first key signs, all are accepted. To rotate: put the new key first for the
    workers, then for the clients, and drop the old one when the runs that it signed are gone. With --file, the new key
    goes before those that the file holds.

    The workers' file says what a key may be used for: --backend binds runs that it signed to backends, and --records
    makes a key that no client needs.
    """
    if backends and records:
        raise InvalidInput("--records: seals what workers store, of all backends; leave out --backend")
    for name in backends:
        _warn_unknown(name)
    made = _made(backends, records)
    if path is None:
        print_json_line(made)
        return
    try:
        if problem := private_files.way_to_problem(path):
            raise InvalidInput(f"--file: {problem}")
        kept = _read(path)
        _write(path, {**made, **kept})
    except OSError as error:
        raise InvalidInput(f"--file: {path}: {error.strerror}") from error
    verb = "added first to" if kept else "written to"
    echo(f"key {next(iter(made))} {verb} {path}; set DISPATCHER__SIGNING_KEYS_FILE={path.resolve()}")


def _warn_unknown(backend: str) -> None:
    """A name that isn't known here may be another installation's; it is kept."""
    from dispatcher import registry

    known = registry.BACKENDS.names()
    if backend not in known:
        there = f"no such backend in this environment; known: {', '.join(known)}"
        echo(Painted("warning:", "yellow"), f" --backend {shown(backend)}: {there}", err=True)


def _made(backends: tuple[str, ...], records: bool) -> dict[str, Any]:
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
