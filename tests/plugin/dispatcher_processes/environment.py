"""The environment that runs a flow in a process of its own on the worker's machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from backends.container import arguments
from backends.container.environment import ContainerEnvironment


class ProcessEnvironment(ContainerEnvironment):
    """Runs a flow in a process.

    Args:
        labels, on_start, on_exit, env: as everywhere.
        secrets: variables whose values lie in files of the worker's machine: ``{"TOKEN": "/run/secrets/token"}``.
        niceness: of the process, 0 to 19; by default that of the settings.

    Raises:
        InvalidInput: an argument is wrong; names it.
    """

    backend: ClassVar[str] = "processes"
    added: ClassVar[tuple[str, ...]] = ("env", "secrets", "niceness")

    niceness: int | None

    def __init__(
        self,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        niceness: int | None = None,
    ) -> None:
        super().__init__(labels, on_start, on_exit, env=env, secrets=secrets)
        if niceness is not None and niceness not in range(20):
            raise arguments.wrong("ProcessEnvironment.niceness", "must be a number from 0 to 19", niceness)
        self.niceness = niceness

    def check_reference(self, variable: str, reference: str) -> None:
        if not Path(reference).is_absolute():
            problem = f"{variable} must be the absolute path of a file, never a value; got"
            raise arguments.wrong("ProcessEnvironment.secrets", problem, arguments.masked(reference))
