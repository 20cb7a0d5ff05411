"""The executor of a flow that has a Dask cluster of its own. Dask itself is imported when it is started."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from dispatcher.executors.dask import DaskExecutor
from dispatcher.executors.dask_cluster.tls import Tls


class ClusterExecutor(DaskExecutor):
    """Submits tasks to the cluster of this process's run.

    Args:
        address: the scheduler's address.
        tls: the cluster's certificate; None for a cluster without.
        has_ended: returns True once the scheduler has died: there is nothing to end any more.
    """

    def __init__(self, address: str, tls: Tls | None, has_ended: Callable[[], bool]) -> None:
        super().__init__(address)
        self._tls = tls
        self._has_ended = has_ended

    def _connect(self, distributed: Any, target: Any) -> Any:
        self.client_kwargs = {} if self._tls is None else {"security": self._tls.security()}
        return super()._connect(distributed, target)

    def _new_session(self, **options: Any) -> Any:
        return super()._new_session(shared=False, names_workers=True, **options)

    def _check_workers(self) -> None:
        """Do nothing: a worker is created as soon as a task waits for one."""

    def _end_session(self) -> None:
        if not self._has_ended():
            super()._end_session()

    def _disconnect(self) -> None:
        if not self._has_ended():
            super()._disconnect()
            return
        client, self._client, self._session = self._client, None, None
        # It waits for a scheduler that is gone; the flow's end doesn't wait for it.
        threading.Thread(target=_close, args=(client,), name="dispatcher-dask-client", daemon=True).start()


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.close(timeout=1)
