"""The flow and the parameters of a ``submit`` or ``map``, and errors of wrong calls that show the right line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypedDict, cast

from dispatcher.errors import InvalidFlow, InvalidInput, InvalidParameters
from dispatcher.flows.annotations import check_types
from dispatcher.flows.bound_flow import BoundFlow
from dispatcher.flows.flow import Flow
from dispatcher.support import signatures
from dispatcher.support.escaping import shown
from dispatcher.support.similar_names import unknown_names

if TYPE_CHECKING:
    from dispatcher.environments.base import Environment
    from dispatcher.runs.retry import Retry
    from dispatcher.storage.base import Storage
    from dispatcher.support.durations import Seconds


class SubmitOptions(TypedDict, total=False):
    """The keywords of ``submit`` and ``map``, for type checkers."""

    environment: Environment | str | None
    storage: Storage | None
    name: str | None
    tags: Iterable[str] | None
    timeout: Seconds | None
    start_within: Seconds | None
    result_ttl: Seconds | None
    retries: int | Retry | None
    idempotency_key: str | None


def single_call(
    flow: Any, parameters: Any, more: Sequence[Any], unknown: Mapping[str, Any], *, typed: bool
) -> tuple[Flow[..., Any], dict[str, Any]]:
    """Return the flow and the checked parameters of a ``submit``.

    Args:
        flow: its first argument.
        parameters: its second one.
        more: further positional arguments, which are a mistake.
        unknown: keywords that aren't options, which are one too.
        typed: check the types of simple annotations.

    Raises:
        InvalidFlow: not a flow.
        InvalidParameters: they don't fit the signature or its annotations, or aren't given as a mapping.
        InvalidInput: an unknown option.
    """
    if isinstance(flow, BoundFlow):
        if parameters is not None or more:
            raise InvalidParameters(f"submit: {flow!r} has its arguments already; give others to bind")
        flow, parameters = flow.flow, flow.parameters
    checked = checked_flow(flow)
    positional = (parameters, *more) if more or not (parameters is None or isinstance(parameters, Mapping)) else ()
    _check_call(checked, positional, unknown)
    return checked, _bound(checked, parameters, signatures.shape_of(cast(FunctionType, checked.fn)), typed=typed)


def many_calls(
    flow: Any, parameters: Any, more: Sequence[Any], unknown: Mapping[str, Any], *, typed: bool
) -> tuple[Flow[..., Any], list[dict[str, Any]]]:
    """Return the flow and the checked parameters of all runs of a ``map``; arguments as of :func:`single_call`.

    Raises:
        InvalidParameters: some don't fit the signature; names the item by its index.
        InvalidInput: an unknown option, or flows bound to arguments that aren't all of one flow.
    """
    if not isinstance(flow, Flow) and parameters is None and isinstance(flow, Iterable):
        flow, parameters = _of_one_flow(flow)
    checked = checked_flow(flow)
    _check_call(checked, more, unknown, method="map")
    if isinstance(parameters, Mapping | str) or not isinstance(parameters, Iterable):
        raise InvalidParameters(
            f"map: needs an iterable of parameter mappings, got {type(parameters).__name__}: "
            f"client.map([{checked.name}.bind(…) for … in …])"
        )
    shape, bound = signatures.shape_of(cast(FunctionType, checked.fn)), []
    for index, item in enumerate(parameters):
        try:
            bound.append(_bound(checked, _unbound(checked, item), shape, typed=typed))
        except InvalidParameters as error:
            raise InvalidParameters(f"map: item {index}: {error}") from None
    return checked, bound


def checked_flow(flow: Any) -> Flow[..., Any]:
    """Return ``flow`` itself.

    Raises:
        InvalidFlow: it isn't a flow.
    """
    if isinstance(flow, Flow):
        return flow
    name = getattr(flow, "__name__", None)
    if isinstance(flow, FunctionType) and name != "<lambda>":
        raise InvalidFlow(f"flow: {name} is a plain function; put @flow on the line above 'def {name}'")
    remedy = "client.submit(flow(…), …) makes one of it" if callable(flow) else "give a function decorated with @flow"
    raise InvalidFlow(f"flow: {shown(flow)} is no flow; {remedy}")


def _of_one_flow(items: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Return the flow of bound flows, with them."""
    bound = list(items)
    flow = bound[0].flow if bound and isinstance(bound[0], BoundFlow) else None
    for index, item in enumerate(bound):
        if not isinstance(item, BoundFlow):
            raise InvalidFlow(f"map: item {index}: {shown(item)} is no flow with arguments, as flow.bind(…) gives")
        if item.flow is not flow:
            raise InvalidInput(f"map: item {index} is of flow {item.flow.name!r}, item 0 of another; map them apart")
    if flow is None:
        raise InvalidInput("map: an empty list doesn't say of which flow; give the flow and an empty list")
    return flow, bound


def _unbound(flow: Flow[..., Any], item: Any) -> Any:
    """Return the parameters of an item of a map, which may be a bound flow."""
    if not isinstance(item, BoundFlow):
        return item
    if item.flow is not flow:
        raise InvalidParameters(f"it is of flow {item.flow.name!r}, not of {flow.name!r}")
    return item.parameters


def _check_call(
    flow: Flow[..., Any], positional: Sequence[Any], unknown: Mapping[str, Any], *, method: str = "submit"
) -> None:
    """Check that nothing but options is left of a call."""
    parameters = flow.signature.parameters if unknown else {}
    strange = [name for name in unknown if name not in parameters]
    if strange:
        options = SubmitOptions.__annotations__
        raise InvalidInput(f"{method}: no option is called {unknown_names(strange, options)}")
    if not positional and not unknown:
        return
    arguments = [shown(value) for value in positional] + [f"{name}={shown(value)}" for name, value in unknown.items()]
    if method == "map":
        raise InvalidParameters(f"map: {', '.join(arguments)}: give one mapping per run, or client.map([f.bind(…), …])")
    call = f"client.submit({flow.name}.bind({', '.join(arguments)}), …)"
    raise InvalidParameters(
        f"flow {flow.name!r}: parameters must be one mapping of names to values, or be bound: {call}"
    )


def _bound(flow: Flow[..., Any], parameters: Any, shape: signatures.Shape, *, typed: bool) -> dict[str, Any]:
    function, subject = cast(FunctionType, flow.fn), f"flow {flow.name!r}"
    bound = signatures.bind(function, parameters, subject=subject, shape=shape)
    if typed:
        check_types(function, bound, subject=subject)
    return bound
