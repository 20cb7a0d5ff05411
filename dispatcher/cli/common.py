"""The parts that all commands share: the global options and the client they ask. Used by commands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dispatcher.client.client import Dispatcher
    from dispatcher.settings import Settings

C = TypeVar("C", bound=Callable[..., Any])


@dataclass
class Globals:
    """The global options; each may stand before or behind the command's name."""

    url: str | None = None
    debug: bool = False

    def settings(self, **given: Any) -> Settings:
        """The settings, with what was given on the command line before the variables."""
        from dispatcher.settings import Settings

        return Settings.load(**{"url": self.url, **given})

    @contextmanager
    def client(self) -> Iterator[Dispatcher]:
        """A connected client, closed at the end."""
        from dispatcher import Dispatcher

        with Dispatcher(settings=self.settings()) as client:
            yield client


pass_globals = click.make_pass_decorator(Globals, ensure=True)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        setattr(ctx.ensure_object(Globals), str(param.name), value)


option_url = click.option(
    "--url",
    metavar="URL",
    expose_value=False,
    callback=_keep,
    is_eager=True,
    help="Redis or Valkey that keeps the runs; else DISPATCHER__URL, else the laptop server.",
)
option_debug = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_keep,
    is_eager=True,
    help="Show the traceback of an error.",
)
option_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def common(command: C) -> C:
    """The global options, also behind the command's name."""
    return option_url(option_debug(command))
