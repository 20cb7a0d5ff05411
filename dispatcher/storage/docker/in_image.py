"""The program that :mod:`dispatcher.storage.docker.engine` runs in an image: it checks the flows there, or runs one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dispatcher.support.escaping import escaped


def check(job: str) -> int:
    """Load all flows that a job names. Return 1, with the reason on stderr, if one can't be loaded."""
    import cloudpickle

    from dispatcher.code.activation import importing
    from dispatcher.storage.docker.storage import DockerStorage
    from dispatcher.support.interpreter import PYTHON

    request = json.loads(job)
    if cloudpickle.__version__ != request["cloudpickle"]:
        wanted = f"cloudpickle=={request['cloudpickle']}"
        sys.stderr.write(
            f"the image has cloudpickle {cloudpickle.__version__}, the flow was sealed with {request['cloudpickle']}: "
            f"add {wanted!r} to python_dependencies\n"
        )
        return 1
    for location in request["locations"]:
        try:
            storage = DockerStorage()
            with importing(storage.kept_bundle(location), python=PYTHON):
                storage.get_flow(location)
        except (Exception, SystemExit) as error:
            sys.stderr.write(escaped(f"{location}: {type(error).__name__}: {error}") + "\n")
            return 1
    return 0


def run(location: str, answer: str) -> int:
    """Run a flow with the parameters in ``DISPATCHER__PARAMETERS``, and write its answer to a file."""
    from dispatcher.storage.child_process import run_flow
    from dispatcher.storage.docker.storage import DockerStorage

    data = run_flow(DockerStorage().to_json(), location)
    Path(answer).write_bytes(data)
    return 0


def main(arguments: list[str]) -> int:
    """Run the command ``check JOB`` or ``run LOCATION FILE``."""
    from dispatcher.support import private_files

    private_files.be_alone()
    match arguments:
        case ["check", job]:
            return check(job)
        case ["run", location, answer]:
            return run(location, answer)
    sys.stderr.write("dispatcher.storage.docker.in_image: check JOB | run LOCATION FILE\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
