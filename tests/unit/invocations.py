"""Invocations for the tests of the runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dispatcher.runner.invoke import Invocation, invoke
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.value import Value
from dispatcher.serialization import from_value, to_value
from dispatcher.serialization.seals import AttemptSeal, Returned

SEAL = AttemptSeal("run", 2, b"k" * 32)


def keep(obj: Any, kind: Returned, *, limit: int = 10**6) -> Value:
    subject = f"the {kind} of flow 'f'"
    return to_value(
        obj, subject=subject, limit_inline=10**6, limit=limit, put=lambda _: "", seal=SEAL, kind=kind, setting="LIMIT"
    )


def opened(value: Value | None, kind: Returned = Returned.RESULT) -> Any:
    assert value is not None
    return from_value(value, get=lambda _: b"", seal=SEAL, kind=kind)


def invocation(body: Callable[..., Any], **changes: Any) -> Invocation:
    """Return an invocation whose body takes its parameters as keywords."""

    def run(parameters: Mapping[str, Any]) -> Any:
        return body(**parameters)

    return Invocation(run_id="run", attempt=2, flow="f", **{"body": run, "to_value": keep, **changes})


def settled(_outcome: Outcome) -> None:
    pass


def play(body: Callable[..., Any], **changes: Any) -> Outcome:
    outcome, _ = invoke(invocation(body, **changes), settle=settled)
    return outcome


class Odd(Exception):
    """An exception of the user."""
