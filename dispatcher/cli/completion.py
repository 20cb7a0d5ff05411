"""``completion``: completion of this command by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dispatcher.cli.common import common
from dispatcher.cli.terminal import echo_lines


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete this command.

    \b
    bash:  eval "$(dispatcher completion bash)"            in ~/.bashrc
    zsh:   eval "$(dispatcher completion zsh)"             in ~/.zshrc
    fish:  dispatcher completion fish | source             in ~/.config/fish/config.fish
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # the choices are click's own
    root = ctx.find_root()
    echo_lines(completion_class(root.command, {}, "dispatcher", "_DISPATCHER_COMPLETE").source())
