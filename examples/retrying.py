"""A flow that fails twice and then succeeds: each attempt is in its timeline."""

from __future__ import annotations

from dispatcher import Retry, context, flow


@flow(tags=["demo"], retries=Retry(3, delay=0.5, backoff=2))
def third_time_lucky() -> str:
    """Succeed at the third attempt."""
    context.logger.info("trying, attempt %s", context.attempt)
    if context.attempt is not None and context.attempt < 3:
        raise ConnectionError(f"attempt {context.attempt}: nobody answers")
    return f"succeeded at attempt {context.attempt}"
