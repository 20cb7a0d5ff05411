"""The temporary Dask cluster that an environment asks for, to compute a run's tasks.

Returned by :meth:`~dispatcher.environments.base.Environment.cluster`; the runner starts the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A Dask cluster for one attempt.

    Attributes:
        min_workers: workers that the flow waits for, and that are kept.
        max_workers: most workers at a time.
        work_stealing: whether idle workers take tasks from busy ones; None leaves it to the configuration of Dask.
        scheduler_logs: whether the scheduler's own INFO lines go to the run's log, and not only its warnings.
        has_operator: whether an operator runs scheduler and workers, and adapts them. Then the runner only connects.
    """

    min_workers: int
    max_workers: int
    work_stealing: bool | None
    scheduler_logs: bool
    has_operator: bool = False
