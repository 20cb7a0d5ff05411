"""The ``dispatcher`` command: reads arguments, calls the client, and prints. No decision is made here.

Called by the console script only; :mod:`dispatcher.cli.root` lists the commands. They import what they need when they
run, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command, and end the process with its exit code. ``arguments`` default to those of the process."""
    from dispatcher.cli.root import root

    root.main(args=None if arguments is None else list(arguments), prog_name="dispatcher")
