"""Flows in importable modules: only their names travel."""

from __future__ import annotations

from typing import Any, ClassVar

from dispatcher.errors import InvalidFlow
from dispatcher.flows.flow import Flow, as_flow
from dispatcher.storage import child_process
from dispatcher.storage.answer import Runner
from dispatcher.storage.base import Storage
from dispatcher.support import signatures


class ModuleStorage(Storage):
    """Imports flows as ``package.module:attribute``, in the version that is installed where they run."""

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
        self.flows[flow.name] = location
        return location

    def get_flow(self, location: str) -> Flow[..., Any]:
        return as_flow(signatures.resolve(location, subject="ModuleStorage"))

    def get_env_runner(self, location: str) -> Runner:
        return child_process.runner(self, location)
