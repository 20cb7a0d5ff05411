"""``python -m dispatcher.runner``: what a container runs. Started by a backend, with the variables of
:class:`~dispatcher.runner.container.assignment.Assignment`.

Exit codes: 0, the attempt's end was reported, whatever it was, or another process holds the attempt; 2, it could not
start; 3, its end could not be reported (the last words hold it); 143, it was told to stop from outside, and reported
that (a node forgets why it stopped a pod that then ends with 0); else those of the flow's process, which died.
"""

from __future__ import annotations

import os
import sys

from dispatcher.runner.container import parent


def main() -> int:
    """Run the assigned attempt; the exit status. The flow's process comes this way too."""
    mine = parent.Parent(grace=float(os.environ.get(parent.GRACE) or parent.GRACE_DEFAULT))
    mouth = mine.fork()
    if mouth is not None:
        from dispatcher.runner.container import child

        return child.main(mouth, mine.nonce)
    code = mine.watch()
    if mine.exited:
        return code if code == parent.STOPPED else 0
    if code == 0 and not mine.claimed:
        return 0
    from dispatcher.runner.container import crash_report

    return crash_report.tell(mine, code)


if __name__ == "__main__":
    sys.exit(main())
