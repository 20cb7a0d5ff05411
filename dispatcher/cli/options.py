"""Run options on the command line, under their Python names. Used by ``run``, ``submit`` and ``render``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dispatcher.cli import completions
from dispatcher.errors import InvalidInput
from dispatcher.support.durations import parse_duration
from dispatcher.support.escaping import shown
from dispatcher.support.json_documents import DuplicateKey, read_document

if TYPE_CHECKING:
    from dispatcher.environments.base import Environment
    from dispatcher.runs.retry import Retry
    from dispatcher.storage.base import Storage

C = TypeVar("C", bound=Callable[..., Any])

#: The name of an environment, which is no path and no module with an object in it.
_NAME = re.compile(r"[\w.+-]+")


class Duration(click.ParamType):  # type: ignore[type-arg]  # click's is generic in its newest releases alone
    """A duration in seconds, or with a unit: 90, 1.5m, 2h, 7d."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{shown(value)} is not a duration; {error}", param, ctx)


DURATION = Duration()

_OPTIONS = (
    click.option("-p", "--parameter", "pairs", multiple=True, metavar="KEY=VALUE", help=(
        "Parameter of the flow; repeatable. The value is text where the annotation is str, else JSON.")),
    click.option("--on", "--environment", "environment", metavar="NAME|FILE.json|MODULE:NAME", shell_complete=(
        completions.environments), help=(
        "Environment, or its name in dispatcher.toml; default: local.")),
    click.option("--storage", metavar="FILE.json|MODULE:NAME", help="Storage of the flow's code; default: Redis."),
    click.option("--allow-sealed", is_flag=True, help="Sign sealed code in a FILE.json."),
    click.option("--label", "labels", multiple=True, help="Label of the default LocalEnvironment; repeatable."),
    click.option("--name", help="Name of the run, for people."),
    click.option("--tags", multiple=True, metavar="A,B", help="Tags to search by, separated by commas."),
    click.option("--tag", "tag", multiple=True, metavar="TAG", help="Tag to search by; repeatable."),
    click.option("--timeout", type=DURATION, help="Limit of an attempt's run time (90, 1.5m, 2h)."),
    click.option("--start-within", type=DURATION, help="Limit of the time until an attempt starts."),
    click.option("--result-ttl", type=DURATION, help="How long to keep the run after its end."),
    click.option("--retries", metavar="N|JSON", help='Number of retries, or {"count": 3, "delay": 10, ...}.'),
    click.option("--idempotency-key", metavar="KEY", help="Submits with the same key return the same run."),
)  # fmt: skip


def run_options(command: C) -> C:
    """Add all options of a run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords for ``submit`` from the options' values. Options that weren't given are left out.

    Raises:
        InvalidInput: an option has a wrong value.
    """
    keywords = {name: values[name] for name in ("name", "timeout", "start_within", "result_ttl", "idempotency_key")}
    tags = [tag for text in values["tags"] for tag in text.split(",") if tag] + list(values["tag"])
    keywords["tags"] = tags or None
    keywords["retries"] = None if values["retries"] is None else retries(values["retries"])
    allow_sealed = values["allow_sealed"]
    keywords["environment"] = environment(values["environment"], values["labels"], allow_sealed=allow_sealed)
    keywords["storage"] = None if values["storage"] is None else storage(values["storage"], allow_sealed=allow_sealed)
    return {name: value for name, value in keywords.items() if value is not None}


def retries(text: str) -> int | Retry:
    """Parse an integer, or the fields of a Retry as a JSON object."""
    from dispatcher.runs.retry import Retry

    try:
        data = read_document(text)
    except DuplicateKey as error:
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
    """Load the named environment, or make a LocalEnvironment with ``labels``; None for neither.

    Raises:
        InvalidInput: it doesn't exist, or a file holds sealed code and ``allow_sealed`` isn't set.
    """
    if text is None:
        if not labels:
            return None
        from dispatcher import LocalEnvironment

        return LocalEnvironment(labels=list(labels))
    if labels:
        raise InvalidInput("--label: labels belong to the environment; write them there, not beside --environment")
    from dispatcher.environments.base import Environment, from_json
    from dispatcher.environments.named import named, names

    if _NAME.fullmatch(text) and not text.endswith((".json", ".py")):
        module = text.replace(".", "/")
        if text in names() or not (Path(f"{module}.py").is_file() or Path(module).is_dir()):
            return named(text)
    return _load(text, Environment, from_json, "--environment", allow_sealed)


def storage(text: str, *, allow_sealed: bool = False) -> Storage:
    """Load the named storage; ``allow_sealed`` as for :func:`environment`."""
    from dispatcher.storage.base import Storage, from_json

    return _load(text, Storage, from_json, "--storage", allow_sealed)  # type: ignore[type-abstract]


T = TypeVar("T")


def _load(text: str, kind: type[T], from_json: Callable[[Any], T], option: str, allow_sealed: bool) -> T:
    from dispatcher.cli.targets import load
    from dispatcher.environments.callbacks import sealed_in

    if not text.endswith(".json"):
        return load(text, kind, argument=option)
    path = Path(text)
    try:
        data = read_document(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{option}: {text} can't be read: {error.strerror}") from None
    except DuplicateKey as error:
        raise InvalidInput(f"{option}: {text}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{option}: {text} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(f'{option}: {text} must hold a JSON object like {{"type": "Local{kind.__name__}"}}')
    if not allow_sealed and (sealed := sealed_in(data)):
        raise InvalidInput(
            f"{option}: {text} holds sealed code ({', '.join(sealed)}), which your key would sign and a worker would "
            'run: name importable functions, {"ref": "module:function"}; or, if you trust the author of the file, '
            "give --allow-sealed"
        )
    try:
        return from_json(data)
    except InvalidInput as error:
        raise InvalidInput(f"{option}: {text}: {error}") from error
