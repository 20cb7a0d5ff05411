"""``init``: write a commented ``dispatcher.toml``."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import click

from dispatcher.cli.common import common
from dispatcher.cli.terminal import echo
from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.support import config_file


@click.command()
@click.option("--user", is_flag=True, help="Write it to this user's folder for configuration, for all directories.")
@common
def init(*, user: bool) -> None:
    """Write a commented dispatcher.toml here: URL, keys, named environments, profiles. An existing file is kept."""
    path = config_file.user_file() if user else Path.cwd() / config_file.NAME
    if path is None:
        raise InvalidSettings("--user: this user has no home directory; set XDG_CONFIG_HOME")
    text = resources.files("dispatcher.cli").joinpath("dispatcher.toml").read_bytes()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidInput(f"{path} exists already, and was left as it is") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
    echo(f"written to {path}; all in it is a comment until you take a # away")
