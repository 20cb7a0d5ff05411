"""Flows in importable modules: only their names travel."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, ClassVar

from dispatcher.code.locations import locate
from dispatcher.errors import InvalidFlow, InvalidInput
from dispatcher.flows.flow import Flow, as_flow
from dispatcher.storage import child_process
from dispatcher.storage.answer import Runner
from dispatcher.storage.base import Storage
from dispatcher.support import signatures

logger = logging.getLogger(__name__)

_REMEDY = "ModuleStorage sends no file: install the package where the flow runs, or use RedisStorage, which sends them"


class ModuleStorage(Storage):
    """Imports flows as ``package.module:attribute``, in the version that is installed where they run.

    No file of their package travels, neither for the flow nor for callbacks and parameters.
    """

    in_containers: ClassVar[bool] = True

    def add_flow(self, flow: Flow[..., Any]) -> str:
        flow = as_flow(flow)
        module, name = flow.fn.__module__, flow.fn.__qualname__
        if module == "__main__":
            raise InvalidFlow(
                f"flow {flow.name!r} is in __main__, which no other process can import: move it to a module that is "
                "installed where it runs, or use RedisStorage"
            )
        location = f"{module}:{name}"
        if "<" in name or signatures.resolve(location, subject=f"flow {flow.name!r}") is not flow:
            raise InvalidFlow(
                f"flow {flow.name!r}: {location} isn't this flow: give it a module-level name of its own there, or use "
                "RedisStorage"
            )
        if flow.name not in self.flows:
            _warn_of_project(flow.name, module)
        self.flows[flow.name] = location
        return location

    def installed(self, location: str) -> frozenset[str]:
        return frozenset({location.partition(":")[0].partition(".")[0]})

    def get_flow(self, location: str) -> Flow[..., Any]:
        try:
            return as_flow(signatures.resolve(location, subject="ModuleStorage"))
        except InvalidInput as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            raise InvalidInput(f"{error}; {_REMEDY}") from error.__cause__

    def get_env_runner(self, location: str) -> Runner:
        return child_process.runner(self, location)


@cache
def _warn_of_project(name: str, module: str) -> None:
    """Tell a person, once, that a flow's module is a project's own."""
    if (location := locate(module)) is not None:
        logger.warning(
            "Flow %r is in module %s of a project (%s), and not of an installed package; %s",
            name, module, location.file or location.directories[0], _REMEDY,
        )  # fmt: skip
