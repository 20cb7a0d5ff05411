"""A flow that never ends by itself: when it is cancelled, its ``finally`` and ``on_exit`` still run."""

from __future__ import annotations

import time
from itertools import count

from dispatcher import context, flow


def log_final_state() -> None:
    """Log the flow's final state, as the environment's ``on_exit``."""
    context.logger.info("on_exit: the flow ended as %s", context.state)


@flow(tags=["demo"])
def keep_counting() -> None:
    """Count for ever."""
    try:
        for number in count(1):
            context.logger.info("still counting: %d", number)
            time.sleep(0.5)
    finally:
        context.logger.info("finally: cleaning up")
