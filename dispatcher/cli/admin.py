"""``admin``: what an administrator does for an installation, once or at each upgrade."""

from __future__ import annotations

import click

from dispatcher.cli.common import Globals, common, pass_globals
from dispatcher.cli.terminal import echo
from dispatcher.errors import InvalidSettings


@click.group()
@common
def admin() -> None:
    """Prepare a server for this release."""


@admin.command()
@click.option("--prune", is_flag=True, help="Also remove the functions of other releases.")
@common
@pass_globals
def install(known: Globals, prune: bool) -> None:
    """Load this release's functions into the server.

    Workers do so by themselves where their user may. This is for a server on which none may, and for the time before
    the first worker runs. It takes the URL of a user who may load functions: an administrator's. Releases live side by
    side, each with functions of its own; --prune removes those of all others, of every installation on the server.
    """
    from dispatcher.records.redis.installing import install as load

    url = known.settings().url
    if url is None:
        raise InvalidSettings("no server: give --url, or set DISPATCHER__URL; the laptop server needs no install")
    installed = load(url, prune=prune)
    echo(f"library {installed.library} {'loaded' if installed.new else 'was there'}")
    for name in installed.removed:
        echo(f"library {name} removed")
