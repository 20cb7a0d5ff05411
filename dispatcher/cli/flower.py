"""``flower``: run Flower, bound to loopback and protected by a password."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import GlobalOptions, common, pass_global_options
from dispatcher.cli.terminal import echo
from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.support.hangup import leave_terminal, on_hangup

if TYPE_CHECKING:
    from dispatcher.settings import Settings

_USER = "dispatcher"
#: Columns of the list of tasks; the kwargs hold run, flow, backend and labels.
_COLUMNS = "name,uuid,state,kwargs,received,runtime,worker"

#: Seconds that Flower's own threads get to finish.
_EXIT_TIMEOUT = 2.0


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5555, show_default=True, help="Port; 0 picks a free one."
)
@click.option(
    "--auth",
    metavar="USER:PASSWORD",
    envvar="FLOWER_BASIC_AUTH",
    show_envvar=True,
    help="Credentials, in place of a generated password.",
)
@click.option("--no-auth", is_flag=True, help="Require no password.")
@click.option("--control", is_flag=True, help="Let users control workers; default: read-only.")
@click.option("--broker-url", metavar="URL", help="Redis or Valkey server for doorbells, if it is another one.")
@common
@pass_global_options
def flower(
    global_options: GlobalOptions,
    address: str,
    port: int,
    auth: str | None,
    no_auth: bool,
    control: bool,
    broker_url: str | None,
) -> None:
    """Start Flower, Celery's monitoring page.

    It shows workers, queues, and each execute task with its run, flow, backend and labels. A password is generated and
    printed once, unless --auth gives one or --no-auth drops it. Set other options of Flower by FLOWER_… variables.
    """
    credentials = _credentials(auth, no_auth=no_auth)
    if find_spec("flower") is None:
        raise MissingExtra("Flower isn't installed: pip install 'flow-dispatcher[laptop]'")
    with _settings(global_options, broker_url) as settings:
        instance = _instance(settings)
        port = _check_port(address, port)
        echo(f"Flower  http://{f'[{address}]' if ':' in address else address}:{port}")
        _announce(address, credentials, generated=auth is None)
        _serve(settings, instance, address=address, port=port, credentials=credentials, control=control)


def _credentials(auth: str | None, *, no_auth: bool) -> str:
    """Return ``user:password``; empty without a password."""
    if no_auth:
        return ""
    if auth is None:
        return f"{_USER}:{secrets.token_urlsafe(18)}"
    user, colon, password = auth.partition(":")
    if not user or not colon or not password or "," in auth:
        raise InvalidInput("--auth: write USER:PASSWORD, without commas")
    return auth


def _announce(address: str, credentials: str, *, generated: bool) -> None:
    if credentials:
        user, _, password = credentials.partition(":")
        echo(f"user    {user}")
        echo(f"password  {password if generated else 'as given'}")
    elif address not in {"127.0.0.1", "::1", "localhost"}:
        echo(f"warning: everybody who can reach {address} has access, without a password", err=True)


@contextmanager
def _settings(global_options: GlobalOptions, broker_url: str | None) -> Iterator[Settings]:
    """Return settings with a URL. Without one, join the laptop server, so that it stays up."""
    settings = global_options.settings(broker_url=broker_url)
    if settings.url is not None or not settings.embedded:
        yield settings
        return
    from dispatcher import laptop

    with laptop.join(settings) as joined:
        yield joined.settings


def _instance(settings: Settings) -> str:
    from dispatcher.connect import connect

    records = connect(settings)
    try:
        return records.instance
    finally:
        records.close()


def _check_port(address: str, port: int) -> int:
    """Return ``port`` if it is free, or a free one for 0. Flower itself would only print a traceback."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            free_port: int = probe.getsockname()[1]
            return free_port
    except OSError as error:
        raise InvalidInput(f"--address {address} --port {port}: {error.strerror} (choose another port)") from None


def _serve(settings: Settings, instance: str, *, address: str, port: int, credentials: str, control: bool) -> None:
    """Run Flower until a signal. Its options are passed in memory: other users can read a command line."""
    from dispatcher.broker.celery_app import make_app

    os.environ.pop("FLOWER_BASIC_AUTH", None)
    columns = os.environ.get("FLOWER_TASKS_COLUMNS", _COLUMNS)
    arguments = [f"--address={address}", f"--port={port}", f"--tasks_columns={columns}", "--logging=warning"]
    if not control:
        arguments.append("--read_only")
    if credentials:
        arguments.append(f"--basic_auth={credentials}")
    app = make_app(settings, instance)
    app.control.enable_events()  # Flower's own first request comes only after 5 s
    on_hangup(lambda *_: sys.exit(0))  # as Flower does at SIGTERM
    try:
        app.start(["flower", *arguments])
    finally:
        leave_terminal()
        _exit_within(_EXIT_TIMEOUT)


def _exit_within(seconds: float) -> None:
    """Exit at the latest then: Flower's threads retry for ever if the server is gone."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()
