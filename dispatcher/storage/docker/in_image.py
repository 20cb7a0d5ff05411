"""The program in an image of flows for :mod:`dispatcher.storage.docker.engine`: ``check`` its flows, or ``run`` one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dispatcher.support.escaping import escaped


def check(job: str) -> int:
    """Load all flows; 1, with the reason on stderr, if one doesn't."""
    import cloudpickle

    from dispatcher.storage.docker.storage import DockerStorage

    asked = json.loads(job)
    if cloudpickle.__version__ != asked["cloudpickle"]:
        wanted = f"cloudpickle=={asked['cloudpickle']}"
        sys.stderr.write(
            f"the image has cloudpickle {cloudpickle.__version__}, the flow was sealed with {asked['cloudpickle']}: "
            f"add {wanted!r} to python_dependencies\n"
        )
        return 1
    for location in asked["locations"]:
        try:
            DockerStorage().get_flow(location)
        except (Exception, SystemExit) as error:
            sys.stderr.write(escaped(f"{location}: {type(error).__name__}: {error}") + "\n")
            return 1
    return 0


def run(location: str, answer: str) -> int:
    """Run a flow with the parameters of ``DISPATCHER__PARAMETERS``; its answer goes to a file."""
    from dispatcher.storage.child_process import answered
    from dispatcher.storage.docker.storage import DockerStorage

    data = answered(DockerStorage().to_json(), location)
    Path(answer).write_bytes(data)
    return 0


def main(arguments: list[str]) -> int:
    """``check JOB`` or ``run LOCATION FILE``."""
    match arguments:
        case ["check", job]:
            return check(job)
        case ["run", location, answer]:
            return run(location, answer)
    sys.stderr.write("dispatcher.storage.docker.in_image: check JOB | run LOCATION FILE\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
