"""The root command: global options, subcommands, and errors as one line with a remedy. Used by ``main`` and tests."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from dispatcher.cli import (
    admin,
    build,
    bundle,
    completion,
    doctor,
    down,
    flower,
    gc,
    init,
    keys,
    logs,
    render,
    run,
    runs,
    server,
    worker,
)
from dispatcher.cli.common import GlobalOptions, option_config, option_debug, option_profile, option_url
from dispatcher.cli.error_messages import Failure, describe
from dispatcher.cli.help_pages import EXAMPLES, GROUPS
from dispatcher.cli.terminal import Painted, echo, echo_lines

#: 128 + SIGINT, as shells report it.
INTERRUPTED = 130


class Root(click.Group):
    """A group whose commands return their exit code, and which prints an error as one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as click does, with our errors and exit codes."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as problem:
            echo_lines(problem.format_message(), err=True)
            sys.exit(problem.exit_code)
        except click.ClickException as problem:
            echo(*describe(problem), err=True)
            sys.exit(problem.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which people need them."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for group, names in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Report an exception as one line, preceded by its traceback with ``--debug``."""
        try:
            with _short_warnings():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # click exits quietly if the reader of a pipe has gone
        except Exception as error:
            global_options: GlobalOptions = ctx.obj
            if global_options.debug:
                echo_lines(traceback.format_exc().rstrip(), err=True)
            raise Failure.of(error) from error


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings for users as one line, without the code location."""
    previous = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        if issubclass(category, UserWarning):
            echo(Painted("warning:", "yellow"), f" {' '.join(str(message).split())}", err=True)
        else:
            echo_lines(warnings.formatwarning(message, category, filename, lineno, line).rstrip(), err=True)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = previous


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@option_url
@option_config
@option_profile
@option_debug
@click.version_option(package_name="flow-dispatcher", prog_name="dispatcher")
@click.pass_context
def root(ctx: click.Context, /, **_: Any) -> None:
    """Dispatch flows to execution environments, and follow them to their end.

    Without a URL (--url, DISPATCHER__URL or dispatcher.toml), commands use this user's laptop server.
    """
    ctx.ensure_object(GlobalOptions)


for _command in (
    run.run,
    run.submit,
    runs.cancel,
    runs.list_runs,
    runs.show,
    logs.logs,
    logs.events,
    runs.explain,
    render.render,
    bundle.bundle,
    build.build,
    worker.worker,
    server.status,
    server.up,
    down.down,
    flower.flower,
    gc.gc,
    init.init,
    keys.keygen,
    doctor.doctor,
    admin.admin,
    completion.completion,
):
    _command.epilog = f"\b\nExample:\n  {EXAMPLES[str(_command.name)]}"
    root.add_command(_command)
