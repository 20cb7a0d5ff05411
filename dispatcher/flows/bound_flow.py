"""A flow with its arguments, made by :meth:`~dispatcher.flows.flow.Flow.bind`: what ``submit`` and ``map`` take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dispatcher.support import signatures
from dispatcher.support.escaping import shown

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow

R = TypeVar("R")


class BoundFlow(Generic[R]):
    """A flow with its arguments. It hasn't run: a submit sends it, a plain call runs it here.

    Attributes:
        flow: the flow.
        parameters: its parameters by name, without defaults; read-only.
    """

    flow: Flow[..., R]
    parameters: Mapping[str, Any]

    def __init__(self, flow: Flow[..., R], parameters: Mapping[str, Any]) -> None:
        self.flow = flow
        self.parameters = MappingProxyType(dict(parameters))

    def __call__(self) -> R:
        """Run the flow here, as a function."""
        function: Any = self.flow.fn
        args, kwargs = signatures.spread(signatures.shape_of(function), self.parameters)
        return self.flow(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundFlow):
            return NotImplemented
        return self.flow is other.flow and self.parameters == other.parameters

    __hash__ = None  # type: ignore[assignment]  # parameters may be mutable

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={shown(value)}" for name, value in self.parameters.items())
        return f"<BoundFlow {self.flow.name}({arguments})>"

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundFlow, (self.flow, dict(self.parameters))
