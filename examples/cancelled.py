"""A flow that never ends by itself: somebody cancels it, and its ``finally`` and ``on_exit`` still run."""

from __future__ import annotations

import time
from itertools import count

from dispatcher import context, flow


def said_goodbye() -> None:
    """The environment's ``on_exit``: knows how the flow ended."""
    context.logger.info("on_exit: the flow ended as %s", context.state)


@flow(tags=["demo"])
def keep_counting() -> None:
    """Count for ever."""
    try:
        for number in count(1):
            context.logger.info("still here: %d", number)
            time.sleep(0.5)
    finally:
        context.logger.info("finally: putting things away")
