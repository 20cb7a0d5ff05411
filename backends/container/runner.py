"""The runner in a container: the command that starts it, its variables, and the grace between SIGTERM and SIGKILL."""

from __future__ import annotations

import math

from dispatcher.settings import Settings

#: The program that runs an attempt of a run, the one that runs a flow for an environment's ``execute``, and one
#: that only tries out the container, for the doctor.
RUNNER = "dispatcher.runner"
DIRECT_RUNNER = "dispatcher.runner.direct"
TRIAL_RUNNER = "dispatcher.runner.trial"


def command(module: str = RUNNER) -> list[str]:
    """Return the command of the flow's container. The working directory isn't on its import path."""
    return ["python3", "-P", "-m", module]


def variables(
    *, grace: int, secrets_file: str, last_words: str = "", linger: int = 0, cancel_poll: int = 0
) -> dict[str, str]:
    """Return the variables that tell a runner of its container. None of them is secret.

    Args:
        grace: seconds between SIGTERM and SIGKILL.
        secrets_file: path of the file with the secret variables, as one JSON object.
        last_words: path of a file that outlives the container; empty if there is none.
        linger: seconds for which the container waits for its deletion once its end was reported.
        cancel_poll: seconds between two looks for a cancel; 0: the container learns of one by SIGTERM alone.
    """
    optional = {"DISPATCHER__RUN__LAST_WORDS": last_words} if last_words else {}
    for name, seconds in (("LINGER", linger), ("CANCEL_POLL", cancel_poll)):
        if seconds:
            optional[f"DISPATCHER__RUN__{name}"] = str(seconds)
    return {
        "DISPATCHER__EMBEDDED": "false",
        "DISPATCHER__RUN__SECRETS_FILE": secrets_file,
        **optional,
        "DISPATCHER__RUN__GRACE": str(grace),
    }


def grace_seconds(settings: Settings) -> int:
    """Return the least time between SIGTERM and SIGKILL: one and a half times what a flow and its ``on_exit`` get."""
    return math.ceil(1.5 * (settings.timing.stop_grace + settings.timing.on_exit_timeout))
