"""Check at a submit that an environment's executor works beside the modules of the flow's project."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Collection

from dispatcher.environments.base import Environment
from dispatcher.executors.base import Executor
from dispatcher.support import signatures


def check_modules(environment: Environment, modules: Collection[str]) -> None:
    """Ask the class that the environment's field ``executor`` has or names.

    A class that is installed only where the flow runs is asked there.

    Args:
        environment: the run's.
        modules: top-level names of the modules in the flow's code bundle.

    Raises:
        InvalidInput: one has the name of a package that the executor needs; names both.
    """
    executor = getattr(environment, "executor", None)
    if isinstance(executor, str):
        if importlib.util.find_spec(executor.partition(":")[0].partition(".")[0]) is None:
            return
        executor = signatures.resolve(executor, subject="executor")
    if inspect.isclass(executor) and issubclass(executor, Executor):
        executor.check_modules(modules)
