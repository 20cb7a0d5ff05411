"""Calls of a session to its Dask scheduler that Dask itself lacks: to keep code bundles, and to forget lines.

Any scheduler gets a function by ``run_function``. The scheduler of a run's own cluster blocks that, as it runs whatever
a client sends; it has :data:`HANDLERS` instead, and says so in its identity. Imported only if Dask is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dispatcher.executors import dask_code
from dispatcher.executors.dask_code import Opening

#: In the identity of a scheduler that has :data:`HANDLERS`.
IDENTITY = "dispatcher_handlers"


def open_code(client: Any, opening: Opening, archives: Mapping[str, bytes], *, timeout: float) -> Collection[str]:
    """Call :func:`dispatcher.executors.dask_code.open_on_scheduler`.

    Args:
        client: a connected ``distributed.Client``.
        opening: the bundles.
        archives: those that are missing, by digest.
        timeout: most seconds for the answer.
    """
    arguments = {"client": client.id, "opening": fields(opening), "archives": dict(archives)}
    call = client.scheduler.dispatcher_open_code
    if not _has_handlers(client):
        call, arguments = client._run_on_scheduler, {"function": _caller("open_on_scheduler"), **arguments}
    missing: Collection[str] = client.sync(call, callback_timeout=timeout, **arguments)
    return missing


def close_code(client: Any, session: str) -> None:
    """Call :func:`dispatcher.executors.dask_code.close_on_scheduler`."""
    if _has_handlers(client):
        client.sync(client.scheduler.dispatcher_close_code, session=session)
    else:
        client.run_on_scheduler(_caller("close_on_scheduler"), session=session)


async def remove_lines(client: Any, topic: str) -> None:
    """Remove the lines that tasks have sent under a topic from the scheduler. Runs in the client's loop."""
    if _has_handlers(client):
        await client.scheduler.dispatcher_remove_lines(topic=topic)
    else:
        await client.run_on_scheduler(_lines_remover(topic))


def fields(opening: Opening) -> tuple[Any, ...]:
    """Return the fields of an opening, which travel in its place: the other end may lack this package."""
    return opening.session, opening.label, opening.digests, opening.timeout


def _has_handlers(client: Any) -> bool:
    return bool(client.scheduler_info().get(IDENTITY))


# -- on the scheduler


def _open_handler(scheduler: Any) -> Callable[..., Any]:
    async def dispatcher_open_code(client: str, opening: Sequence[Any], archives: Mapping[str, bytes]) -> Sequence[str]:
        session, label, digests, timeout = opening
        opened = Opening(session, label, tuple(digests), timeout)
        return await dask_code.open_on_scheduler(scheduler, client, opened, archives)

    return dispatcher_open_code


def _close_handler(scheduler: Any) -> Callable[..., Any]:
    async def dispatcher_close_code(session: str) -> None:
        await dask_code.close_on_scheduler(scheduler, session)

    return dispatcher_close_code


def _lines_handler(scheduler: Any) -> Callable[..., Any]:
    def dispatcher_remove_lines(topic: str) -> None:
        scheduler._broker.truncate(topic)

    return dispatcher_remove_lines


#: What a scheduler needs in its ``handlers``: functions that return the handler of a scheduler, by the handler's name.
HANDLERS: Mapping[str, Callable[[Any], Callable[..., Any]]] = {
    "dispatcher_open_code": _open_handler,
    "dispatcher_close_code": _close_handler,
    "dispatcher_remove_lines": _lines_handler,
}


def _caller(name: str) -> Any:
    """Return a function that calls one of :mod:`.dask_code` on the scheduler, and says so if there is none.

    It travels by value, since the scheduler may lack this package.
    """

    async def call(dask_scheduler: Any, **arguments: Any) -> Any:
        try:
            from dispatcher.executors import dask_code
        except ImportError as error:
            raise RuntimeError(
                f"the scheduler has another release of flow-dispatcher, or none: install the flow's ({error})"
            ) from None
        if "opening" in arguments:
            arguments["opening"] = dask_code.Opening(*arguments["opening"])
        return await getattr(dask_code, name)(dask_scheduler, **arguments)

    call.__module__ = "__main__"
    return call


def _lines_remover(topic: str) -> Any:
    """Return a function that removes a run's lines from the scheduler. It travels by value, too."""

    def remove_lines(dask_scheduler: Any) -> None:
        dask_scheduler._broker.truncate(topic)

    remove_lines.__module__ = "__main__"
    return remove_lines
