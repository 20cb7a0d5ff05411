"""``admin``: commands for an administrator, run once per installation or at each upgrade."""

from __future__ import annotations

import click

from dispatcher.cli.common import GlobalOptions, common, pass_global_options
from dispatcher.cli.terminal import echo
from dispatcher.errors import InvalidSettings


@click.group()
@common
def admin() -> None:
    """Prepare a server for this release."""


@admin.command()
@click.option("--prune", is_flag=True, help="Also remove the functions of other releases.")
@common
@pass_global_options
def install(global_options: GlobalOptions, prune: bool) -> None:
    """Load this release's functions into the server.

    Workers load them by themselves if their user may. Use this command on a server where they may not, or before the
    first worker runs. It needs the URL of a user who may load functions, such as an administrator. Releases live side
    by side, each with its own functions; --prune removes those of all others, of every installation on the server.
    """
    from dispatcher.records.redis.installing import install as load

    url = global_options.settings().url
    if url is None:
        raise InvalidSettings("no server: give --url, or set DISPATCHER__URL; the laptop server needs no install")
    installed = load(url, prune=prune)
    echo(f"library {installed.library} {'loaded' if installed.new else 'was there'}")
    for name in installed.removed:
        echo(f"library {name} removed")
