"""``python -m tests.chaos.soak_client PLAN``: a client process of the soak, which uses the public API alone.

It submits its share of runs, each under a key of its own, cancels some, waits for all of them, and keeps a ledger of
what it was told. Once the faults are over (the file ``healed``) it asks again for what it doesn't know.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import (
    Dispatcher,
    InvalidInput,
    LocalEnvironment,
    RemoteEnvironment,
    Run,
    RunError,
    ServerUnavailable,
    UnknownRun,
)
from dispatcher.environments.base import Environment
from tests.chaos.call_log import Call, CallLog
from tests.chaos.flows import callbacks, marked
from tests.chaos.workload import RunRequest, draw

#: The file that says that no more faults come.
HEALED = "healed"

#: Seconds between two tries of what must be done in the end.
PAUSE = 0.5

#: Runs of one client that may be open at once: what faults keep from being done waits, and doesn't grow without end.
ABREAST = 50


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of one client. ``pause`` is the mean, in seconds, between two submits; ``within`` bounds its waiting."""

    name: str
    folder: str
    seed: int
    count: int
    pause: float
    within: float = 300.0


class SoakClient:
    """Client that executes a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = Path(plan.folder)
        self._rng = random.Random(f"{plan.seed}:{plan.name}")
        self._client = Dispatcher()
        self._ledger = CallLog(self._folder / f"calls-{plan.name}.jsonl")
        self._open: dict[str, tuple[RunRequest, Run[int]]] = {}
        self._to_cancel: dict[str, float] = {}
        self._lock = threading.Lock()
        self._all_asked = threading.Event()

    def play(self) -> bool:
        """Return True if all that was accepted was seen to end."""
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        watch.start()
        unknown = self._submit_all()
        (self._folder / f"submitted-{self._plan.name}").touch()
        end = time.monotonic() + self._plan.within + 4 * self._plan.pause * self._plan.count
        while not (self._folder / HEALED).exists() and time.monotonic() < end:
            time.sleep(PAUSE)
        for order in unknown:
            while self._submit(order, "again") != "ok" and time.monotonic() < end:
                time.sleep(PAUSE)
        self._all_asked.set()
        watch.join(self._plan.within)
        return not self._open and not watch.is_alive()

    def _submit_all(self) -> list[RunRequest]:
        """Submit until so many were accepted; those whose fate isn't known."""
        unknown: list[RunRequest] = []
        accepted = asked = 0
        while accepted + len(unknown) < self._plan.count:
            order = draw(self._rng, f"{self._plan.seed}-{self._plan.name}-{asked}")
            asked += 1
            self._wait_for_room()
            answer = self._submit(order, "submit")
            accepted += answer == "ok"
            if answer == "unknown":
                unknown.append(order)
            time.sleep(self._rng.uniform(0, 2 * self._plan.pause))
        return unknown

    def _wait_for_room(self) -> None:
        """Wait while many runs are open; where none ends any more, that is for the checker to see."""
        end = time.monotonic() + self._plan.within
        while len(self._open) >= ABREAST and time.monotonic() < end:
            time.sleep(0.1)

    def _submit(self, order: RunRequest, action: str) -> str:
        begun = time.monotonic()
        run: Run[int] | None = None
        error = ""
        try:
            run = self._client.submit(
                marked,
                order.parameters(self._plan.folder),
                environment=self._environment(order.backend),
                retries=order.way.retries,
                timeout=order.way.timeout,
                idempotency_key=order.key,
            )
            answer = "ok"
        except ServerUnavailable as lost:
            answer, error = "unknown" if lost.may_exist else "failed", str(lost)
        self._note(action, order, answer, run, error=error, took=time.monotonic() - begun)
        if run is not None:
            with self._lock:
                self._open[run.id] = order, run
                if order.way.cancelled:
                    self._to_cancel[run.id] = time.monotonic() + self._rng.uniform(0.0, 2.0)
        return answer

    def _environment(self, backend: str) -> Environment:
        account: dict[str, Any] = callbacks(self._folder)
        match backend:
            case "local":
                return LocalEnvironment(**account)
            case "remote":
                return RemoteEnvironment(**account)
        return FakeEnvironment(self._folder / "service", **account)

    def _watch(self) -> None:
        """Cancel what is to be cancelled, and note each end as it is seen."""
        while True:
            with self._lock:
                runs = [run for _, run in self._open.values()]
            if not runs and self._all_asked.is_set():
                return
            self._cancel_due()
            if runs:
                self._bearing(lambda runs=runs: self._note_ended(runs))  # type: ignore[misc]
            else:
                time.sleep(0.1)

    def _note_ended(self, runs: list[Run[int]]) -> None:
        for run in self._client.wait(runs, return_when="FIRST_COMPLETED", timeout=PAUSE).done:
            order, _ = self._open[run.id]
            action, state, result, error = "ended", "", None, ""
            try:
                state = str(run.state)
                result = run.result(timeout=10)
            except RunError as failed:
                error = type(failed).__name__
            except UnknownRun as gone:
                action, error = "gone", str(gone)
            self._note(action, order, state, run, result=result, error=error)
            with self._lock:
                del self._open[run.id]

    def _cancel_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [self._open[run_id] for run_id, at in self._to_cancel.items() if at <= now and run_id in self._open]
        for order, run in due:
            answer, error = "ok", ""
            try:
                run.cancel()
            except InvalidInput:
                answer = "refused"
            except ServerUnavailable as lost:
                answer, error = "unknown", str(lost)
            self._note("cancel", order, answer, run, error=error)
            with self._lock:
                if answer != "unknown":
                    del self._to_cancel[run.id]

    def _bearing(self, look: Callable[[], None]) -> None:
        try:
            look()
        except ServerUnavailable:
            time.sleep(PAUSE)

    def _note(self, action: str, order: RunRequest, answer: str, run: Run[int] | None, **more: Any) -> None:
        self._ledger.note(
            Call(
                action=action,
                client=self._plan.name,
                key=order.key,
                answer=answer,
                run="" if run is None else run.id,
                way=order.way.name,
                backend=order.backend,
                **more,
            )
        )


if __name__ == "__main__":
    sys.exit(0 if SoakClient(Plan(**json.loads(sys.argv[1]))).play() else 1)
