"""Run options on the command line, under their Python names. Used by ``run`` and ``submit``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dispatcher.errors import InvalidInput
from dispatcher.support.escaping import shown
from dispatcher.support.json_documents import Twice, read_document

if TYPE_CHECKING:
    from dispatcher.environments.base import Environment
    from dispatcher.runs.retry import Retry
    from dispatcher.storage.base import Storage

C = TypeVar("C", bound=Callable[..., Any])

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType):  # type: ignore[type-arg]  # click's is generic in its newest releases alone
    """Seconds as a number, or with a unit: 90, 1.5m, 2h, 7d."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", str(value).strip())
        if match is None:
            self.fail(f"{shown(value)} is no duration; write seconds or a unit: 90, 1.5m, 2h, 7d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


DURATION = Duration()

_OPTIONS = (
    click.option("-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help=(
        "A parameter of the flow; repeat it. Text where the annotation is str, else JSON.")),
    click.option("--environment", metavar="FILE.json|MODULE:NAME", help="Where to run; else LocalEnvironment()."),
    click.option("--storage", metavar="FILE.json|MODULE:NAME", help="Where the code travels; else in Redis."),
    click.option("--allow-sealed", is_flag=True, help="Sign sealed code that such a FILE.json holds."),
    click.option("--label", "labels", multiple=True, help="Label of the default LocalEnvironment; repeat it."),
    click.option("--name", help="A name for people."),
    click.option("--tags", multiple=True, metavar="A,B", help="Tags for searching, separated by commas."),
    click.option("--tag", "tag", multiple=True, metavar="TAG", help="One tag; repeat it."),
    click.option("--timeout", type=DURATION, help="How long the flow may run (90, 1.5m, 2h)."),
    click.option("--start-within", type=DURATION, help="How long until it must have started."),
    click.option("--result-ttl", type=DURATION, help="How long to keep it after its end."),
    click.option("--retries", metavar="N|JSON", help='Further attempts, or {"count": 3, "delay": 10, ...}.'),
    click.option("--idempotency-key", metavar="KEY", help="The same key with the same flow gives the same run."),
)  # fmt: skip


def run_options(command: C) -> C:
    """All options of a run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords for ``submit`` from the options as given; what wasn't given is left out.

    Raises:
        InvalidInput: an option has a wrong value.
    """
    found = {name: given[name] for name in ("name", "timeout", "start_within", "result_ttl", "idempotency_key")}
    tags = [tag for text in given["tags"] for tag in text.split(",") if tag] + list(given["tag"])
    found["tags"] = tags or None
    found["retries"] = None if given["retries"] is None else retries(given["retries"])
    sealed = given["allow_sealed"]
    found["environment"] = environment(given["environment"], given["labels"], allow_sealed=sealed)
    found["storage"] = None if given["storage"] is None else storage(given["storage"], allow_sealed=sealed)
    return {name: value for name, value in found.items() if value is not None}


def retries(text: str) -> int | Retry:
    """An integer, or the fields of a Retry as a JSON object."""
    from dispatcher.runs.retry import Retry

    try:
        data = read_document(text)
    except Twice as error:
        raise InvalidInput(f"--retries: {error}") from None
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, int) and not isinstance(data, bool):
        return data
    if not isinstance(data, dict) or "count" not in data:
        raise InvalidInput(f'--retries: {shown(text)} is neither a number nor JSON like {{"count": 3, "delay": 10}}')
    try:
        return Retry(**data)
    except TypeError as error:
        raise InvalidInput(f"--retries: {str(error).removeprefix('Retry.__init__() ')}") from None


def environment(text: str | None, labels: tuple[str, ...], *, allow_sealed: bool = False) -> Environment | None:
    """The environment named, or a LocalEnvironment with ``labels``; None for neither.

    Raises:
        InvalidInput: there is none, or a file holds sealed code and ``allow_sealed`` isn't set.
    """
    if text is None:
        if not labels:
            return None
        from dispatcher import LocalEnvironment

        return LocalEnvironment(labels=list(labels))
    if labels:
        raise InvalidInput("--label: labels belong to the environment; write them there, not beside --environment")
    from dispatcher.environments.base import Environment, from_json

    return _value(text, Environment, from_json, "--environment", allow_sealed)  # type: ignore[type-abstract]


def storage(text: str, *, allow_sealed: bool = False) -> Storage:
    """The storage named; ``allow_sealed`` as of :func:`environment`."""
    from dispatcher.storage.base import Storage, from_json

    return _value(text, Storage, from_json, "--storage", allow_sealed)  # type: ignore[type-abstract]


T = TypeVar("T")


def _value(text: str, kind: type[T], from_json: Callable[[Any], T], what: str, allow_sealed: bool) -> T:
    from dispatcher.cli.targets import load
    from dispatcher.environments.callbacks import sealed_in

    if not text.endswith(".json"):
        return load(text, kind, what=what)
    path = Path(text)
    try:
        data = read_document(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{what}: {text} can't be read: {error.strerror}") from None
    except Twice as error:
        raise InvalidInput(f"{what}: {text}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}: {text} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(f'{what}: {text} must hold a JSON object like {{"type": "Local{kind.__name__}"}}')
    if not allow_sealed and (sealed := sealed_in(data)):
        raise InvalidInput(
            f"{what}: {text} holds sealed code ({', '.join(sealed)}), which your key would sign and a worker would "
            'run: name functions that can be imported, {"ref": "module:function"}; or, if you trust who made the file, '
            "give --allow-sealed"
        )
    try:
        return from_json(data)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {text}: {error}") from error
