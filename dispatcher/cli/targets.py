"""Load what TARGET names, an object in a module or a file, and parse ``-p key=value`` parameters. Used by commands."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from dispatcher.errors import InvalidInput, InvalidParameters
from dispatcher.support.escaping import LONGEST, article, shown
from dispatcher.support.json_documents import DuplicateKey, read_document

T = TypeVar("T")


def load(target: str, kind: type[T], *, argument: str) -> T:
    """Return the object of class ``kind`` that ``target`` (``module:name`` or ``file.py:name``) names.

    The current directory is importable for a module, the file's folder for a file. Without a name, the module's only
    object of that class is meant. ``argument`` is the name that errors use.

    Raises:
        InvalidInput: module, file or object doesn't exist, can't be imported, or is of another class.
    """
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not place:
        raise InvalidInput(f"{argument} {target!r}: write module:name or file.py:name")
    module = _module(place, argument)
    if not name:
        return _only_object(module, place, kind, argument)
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise InvalidInput(f"{argument} {target!r}: {place} has no {name!r}{_alternatives(module, kind)}") from None
    if not isinstance(value, kind):
        hint = f"; decorate it with @{kind.__name__.lower()}" if inspect.isfunction(value) else ""
        problem = f"is {article(type(value).__name__)}, not {article(kind.__name__)}"
        raise InvalidInput(f"{argument} {target!r}: {problem}{hint or _alternatives(module, kind)}")
    return value


def _module(place: str, argument: str) -> types.ModuleType:
    try:
        if place.endswith(".py"):
            return _file(Path(place), argument)
        _importable(Path.cwd())
        return importlib.import_module(place)
    except InvalidInput:
        raise
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise InvalidInput(
                f"{argument}: there is no module {place!r} in {Path.cwd()} or among the installed packages"
                f"{_file_hint(place)}"
            ) from error
        raise InvalidInput(
            f"{argument}: {place} can't be imported: {error} (is it installed in {sys.prefix}?)"
        ) from error
    except (Exception, SystemExit) as error:
        raise InvalidInput(
            f"{argument}: {place} can't be imported: {type(error).__name__}: {error}{_location(error)}"
        ) from error


def _file(path: Path, argument: str) -> types.ModuleType:
    if not path.is_file():
        raise InvalidInput(f"{argument}: there is no file {str(path)!r}")
    path = path.resolve()
    _importable(path.parent)
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None or not name.isidentifier() or name in sys.builtin_module_names:
        name = f"_flows_in_{''.join(char if char.isalnum() else '_' for char in name)}"  # no other module's name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling the flow looks its module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _only_object(module: types.ModuleType, place: str, kind: type[T], argument: str) -> T:
    names = _names(module, kind)
    if len(names) == 1:
        return typing.cast(T, getattr(module, names[0]))
    if not names:
        raise InvalidInput(f"{argument}: {place} has no {kind.__name__}")
    raise InvalidInput(f"{argument}: {place} has several; say which: {', '.join(f'{place}:{name}' for name in names)}")


def _names(module: types.ModuleType, kind: type[Any]) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, kind) and not name.startswith("_")]


def _alternatives(module: types.ModuleType, kind: type[Any]) -> str:
    names = _names(module, kind)
    return f"; it has {', '.join(names)}" if names else ""


def _file_hint(place: str) -> str:
    return f"; did you mean {place}.py?" if Path(f"{place}.py").is_file() else ""


def _location(error: BaseException) -> str:
    """Name the line of user code that raised; the message alone seldom does."""
    step = error.__traceback__
    last = None
    while step is not None:
        last, step = step, step.tb_next
    if last is None or "importlib" in last.tb_frame.f_code.co_filename:
        return ""
    return f" (in {last.tb_frame.f_code.co_filename}, line {last.tb_lineno})"


def parameters(function: Callable[..., Any], pairs: Iterable[str]) -> dict[str, Any]:
    """Parse ``-p key=value`` pairs: the value is text where the annotation is ``str``, else JSON.

    Raises:
        InvalidParameters: a pair has no ``=``, repeats a key, names no parameter, or its value isn't valid JSON.
    """
    expected, accepted = _annotations(function), _accepted(function)
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InvalidParameters(f"-p {pair}: write -p name=value")
        if key in values:
            raise InvalidParameters(f"-p {key}: given twice (a list is one JSON value: -p '{key}=[1, 2]')")
        if accepted is not None and key not in accepted:
            raise InvalidParameters(
                f"-p {key}: the flow has no such parameter; it takes {', '.join(accepted) or 'none'}"
            )
        values[key] = text if _is_text(expected.get(key)) else _json(key, text, expected)
    return values


def _json(key: str, text: str, expected: Mapping[str, Any]) -> Any:
    try:
        return read_document(text)
    except DuplicateKey as error:
        raise InvalidParameters(f"-p {key}: {error}") from None
    except (ValueError, RecursionError):
        kind = _name(expected[key]) if key in expected else ""
        rule = f"expected JSON for {kind}" if kind else "expected JSON, as it has no annotation"
        raise InvalidParameters(f"-p {key}: {shown(text)} is not JSON; {rule} ({_hint(key, text, kind)})") from None


def _hint(key: str, text: str, kind: str) -> str:
    guess = {"true": "true", "false": "false", "none": "null", "yes": "true", "no": "false"}.get(text.lower())
    if guess:
        return f"write -p {key}={guess}"
    if kind:
        return "a number is written as it is, a list as [1, 2], an object as {...}"
    example = json.dumps(text if len(text) <= LONGEST else "...")
    return f"for text write -p '{key}={example}'"


def _accepted(function: Callable[..., Any]) -> list[str] | None:
    """Return the parameters that can be given by name; None if any name is accepted."""
    declared = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in declared if parameter.kind in by_name]


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return annotations by parameter, without ``*args`` and ``**kwargs``. Text that doesn't evaluate stays text."""
    declared = {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is not inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    return {name: _evaluate(function, annotation) for name, annotation in declared.items()}


def _evaluate(function: Callable[..., Any], annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": annotation}), namespace)["it"]
    except Exception:
        return annotation  # a name that only type checkers know


def _is_text(annotation: Any) -> bool:
    """Return True if the annotation admits text and nothing else but None."""
    if isinstance(annotation, str):
        return annotation in {"str", "str | None", "Optional[str]"}
    if annotation is str:
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_text(typing.get_args(annotation)[0])
    if origin is Literal:
        return all(isinstance(value, str) for value in typing.get_args(annotation))
    if origin is Union or origin is types.UnionType:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return bool(kinds) and all(_is_text(kind) for kind in kinds)
    return False


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
