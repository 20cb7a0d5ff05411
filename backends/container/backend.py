"""The base class of backends whose runs start in containers, each in a service of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from backends.base import Backend, Handle, Request
from backends.container.runner import RUNNER
from dispatcher.runs.attempt import Attempt


class ContainerBackend(Backend):
    """A backend of containers: it can also run a flow that belongs to no run, for an environment's ``execute``."""

    #: Bytes of secret variables that a container can be given.
    secrets_limit: ClassVar[int] = 1_000_000

    def prepare(self, attempt: Attempt) -> Request:
        return self.request(attempt)

    def execute(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        """Create the infrastructure of a flow that belongs to no run; return its handle.

        Nobody looks after it later: whatever it needs to run exists once this returns. Raises as :meth:`submit`.
        """
        return self.submit(request, secrets)

    @abstractmethod
    def request(self, attempt: Attempt, *, module: str = RUNNER) -> Request:
        """Return the exact request of an attempt whose container runs ``module``. No I/O; holds no secret.

        Raises:
            Permanent: the settings don't allow what the run asks for.
        """
