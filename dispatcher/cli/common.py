"""The global options, and the client that all commands use. Used by commands only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dispatcher.support.config_file import CONFIG, PROFILE

if TYPE_CHECKING:
    from dispatcher.client.client import Dispatcher
    from dispatcher.settings import Settings

C = TypeVar("C", bound=Callable[..., Any])


@dataclass
class GlobalOptions:
    """The global options; each may stand before or after the command's name."""

    url: str | None = None
    debug: bool = False

    def settings(self, **overrides: Any) -> Settings:
        """Load the settings. Options of the command line take precedence over variables."""
        from dispatcher.settings import Settings

        return Settings.load(**{"url": self.url, **overrides})

    @contextmanager
    def client(self, *, connect: bool = True) -> Iterator[Dispatcher]:
        """Make a client, and close it at the end. Without ``connect``, its first request connects it."""
        from dispatcher import Dispatcher

        client = Dispatcher(settings=self.settings())
        try:
            if connect:
                client.session  # noqa: B018
            yield client
        finally:
            client.close()


pass_global_options = click.make_pass_decorator(GlobalOptions, ensure=True)


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        setattr(ctx.ensure_object(GlobalOptions), str(param.name), value)


option_url = click.option(
    "--url",
    metavar="URL",
    expose_value=False,
    callback=_store,
    is_eager=True,
    help="Redis or Valkey server that stores the runs; default: DISPATCHER__URL, else the laptop server.",
)
option_debug = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_store,
    is_eager=True,
    help="Show the traceback of an error.",
)
option_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _export(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that gives an option's value to this process and its children, as a variable."""

    def export(_ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None:
            os.environ[variable] = str(value)

    return export


option_config = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    expose_value=False,
    callback=_export(CONFIG),
    is_eager=True,
    help="Configuration file; default: DISPATCHER__CONFIG, ./dispatcher.toml, or that of the user.",
)
option_profile = click.option(
    "--profile",
    metavar="NAME",
    expose_value=False,
    callback=_export(PROFILE),
    is_eager=True,
    help="Profile of the configuration file; default: DISPATCHER__PROFILE.",
)


def common(command: C) -> C:
    """Accept the global options after the command's name, too."""
    return option_url(option_config(option_profile(option_debug(command))))
