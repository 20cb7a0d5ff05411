"""The Celery tasks that doorbells name. A message is only a hint: all of it but the run id is for people to read."""

from __future__ import annotations

from typing import Any

from celery import Celery

from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE
from workers.execution import lifecycle
from workers.pool.pool_process import PoolProcess, TaskContext

REQUEST = "workers.pool.celery_request:RunRequest"

#: Characters of a doorbell's content by which similar runs are recognised.
MAX_HINT = 1000


def register(app: Celery) -> None:
    """Register the tasks with ``app``, and remove Celery's own. They can run only in a pool process of a worker."""
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)

    @app.task(name=EXECUTE, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
    def execute(self: Any, run_id: str, **content: object) -> str:
        hint = repr([content.get(name) for name in ("flow", "backend", "labels")])
        return lifecycle.execute(_context(self, run_id), run_id, hint[:MAX_HINT])

    @app.task(name=CALL_ON_EXIT, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
    def call_on_exit(self: Any, run_id: str, **_: object) -> str:
        return lifecycle.call_on_exit(_context(self, run_id), run_id)


def _context(task: Any, run_id: str) -> TaskContext:
    process: PoolProcess = task.app.dispatcher.process
    return process.task_context(run_id, also=task.request.also_served)
