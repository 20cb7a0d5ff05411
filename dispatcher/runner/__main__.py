"""``python -m dispatcher.runner``: the program of a container. A backend starts it, with the variables of
:class:`~dispatcher.runner.container.assignment.Assignment`.

Exit codes: 0, the attempt's end was reported, whatever it was, or another process holds the attempt; 2, it could not
start; 3, its end could not be reported (it is in the termination message); 143, it was stopped from outside, and
reported that (a node forgets why it stopped a pod that then ends with 0); otherwise that of the flow's process, which
died.
"""

from __future__ import annotations

import os
import sys

from dispatcher.runner.container import parent


def main() -> int:
    """Run the assigned attempt and return the exit code, in the parent and in the flow's process."""
    this = parent.ContainerParent(grace=float(os.environ.get(parent.GRACE) or parent.GRACE_DEFAULT))
    progress_fd = this.fork()
    if progress_fd is not None:
        from dispatcher.runner.container import child

        return child.main(progress_fd, this.nonce)
    code = this.watch()
    if this.exited:
        this.linger(float(os.environ.get(parent.LINGER) or 0.0))
        return code if code == parent.STOPPED else 0
    if code == 0 and not this.claimed:
        return 0
    from dispatcher.runner.container import crash_report

    return crash_report.report_crash(this, code)


if __name__ == "__main__":
    sys.exit(main())
