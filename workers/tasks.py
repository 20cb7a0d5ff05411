"""The Celery tasks that doorbells name. A message is only a hint: all but the run id is for people's eyes."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE
from workers.execution import lifecycle
from workers.pool.pool_process import PoolProcess, TaskContext

REQUEST = "workers.pool.celery_request:RunRequest"

#: Characters of what a doorbell tells that are remembered.
LONGEST = 1000


def register(app: Celery) -> None:
    """Give ``app`` the tasks, and take Celery's own; their bodies run in a pool process of a worker only."""
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)

    @app.task(name=EXECUTE, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
    def execute(self: Any, run_id: str, **told: object) -> str:
        like = repr([told.get(name) for name in ("flow", "backend", "labels")])
        return lifecycle.execute(_here(self, run_id), run_id, like[:LONGEST])

    @app.task(name=CALL_ON_EXIT, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
    def call_on_exit(self: Any, run_id: str, **_: object) -> str:
        return lifecycle.call_on_exit(_here(self, run_id), run_id)


def _here(task: Any, run_id: str) -> TaskContext:
    process: PoolProcess = task.app.dispatcher.process
    return process.here(run_id, also=task.request.also_served)
