"""The ``dispatcher`` command. It reads arguments, asks the client, and prints; nothing here decides anything.

Called by the console script alone. Commands import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code; ``arguments`` default to the process's own."""
    from dispatcher.cli.root import root

    root.main(args=None if arguments is None else list(arguments), prog_name="dispatcher")
