"""``keygen``: a new signing key."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from dispatcher import private
from dispatcher.cli.common import common
from dispatcher.errors import InvalidInput, InvalidSettings


@click.command()
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write here (mode 0600) instead.")
@common
def keygen(path: Path | None) -> None:
    """Make a signing key, as JSON: key id → secret.

    Clients and workers of one installation need the same keys: as DISPATCHER__SIGNING_KEYS, or as a file named by
    DISPATCHER__SIGNING_KEYS_FILE. The first key signs, all are accepted. To rotate: put the new key first for the
    workers, then for the clients, and drop the old one when the runs that it signed are gone. With --file, the new key
    goes before those that the file holds.
    """
    from dispatcher.payload import KeyRing

    made = KeyRing.generate()
    if path is None:
        click.echo(json.dumps(made))
        return
    try:
        if problem := private.way_to_problem(path):
            raise InvalidInput(f"--file: {problem}")
        kept = _read(path)
        _write(path, {**made, **kept})
    except OSError as error:
        raise InvalidInput(f"--file: {path}: {error.strerror}") from error
    verb = "added first to" if kept else "written to"
    click.echo(f"key {next(iter(made))} {verb} {path}; set DISPATCHER__SIGNING_KEYS_FILE={path.resolve()}")


def _read(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(private.read(path))
    except FileNotFoundError:
        return {}
    except InvalidSettings as error:
        raise InvalidInput(f"--file: {error}") from None
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict) or not all(isinstance(secret, str) for secret in kept.values()):
        raise InvalidInput(f"--file: {path} exists and holds no signing keys; name another file")
    return kept


def _write(path: Path, keys: dict[str, str]) -> None:
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
