"""The meaning of TARGET and ``-p key=value``: an object in a module or a file, and typed parameters. Used by
commands."""

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
from dispatcher.support.json_documents import Twice, read_document

T = TypeVar("T")


def load(target: str, kind: type[T], *, what: str) -> T:
    """The object of class ``kind`` that ``target`` (``module:name`` or ``file.py:name``) names.

    For a module the current directory is importable, for a file its folder. Without a name, the only object of that
    class which the module itself holds.

    Raises:
        InvalidInput: there is no such module, file or object, it can't be imported, or it's something else.
    """
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not place:
        raise InvalidInput(f"{what} {target!r}: write module:name or file.py:name")
    module = _module(place, what)
    if not name:
        return _only(module, place, kind, what)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidInput(f"{what} {target!r}: {place} has no {name!r}{_instead(module, kind)}") from None
    if not isinstance(found, kind):
        hint = f"; decorate it with @{kind.__name__.lower()}" if inspect.isfunction(found) else ""
        other = f"is {article(type(found).__name__)}, not {article(kind.__name__)}"
        raise InvalidInput(f"{what} {target!r}: {other}{hint or _instead(module, kind)}")
    return found


def _module(place: str, what: str) -> types.ModuleType:
    try:
        if place.endswith(".py"):
            return _file(Path(place), what)
        _importable(Path.cwd())
        return importlib.import_module(place)
    except InvalidInput:
        raise
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise InvalidInput(
                f"{what}: there is no module {place!r} here ({Path.cwd()}) or among the installed packages"
                f"{_perhaps_file(place)}"
            ) from error
        raise InvalidInput(f"{what}: {place} can't be imported: {error} (is it installed in {sys.prefix}?)") from error
    except (Exception, SystemExit) as error:
        raise InvalidInput(
            f"{what}: {place} can't be imported: {type(error).__name__}: {error}{_where(error)}"
        ) from error


def _file(path: Path, what: str) -> types.ModuleType:
    if not path.is_file():
        raise InvalidInput(f"{what}: there is no file {str(path)!r}")
    path = path.resolve()
    _importable(path.parent)
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or not name.isidentifier() or name in sys.builtin_module_names:
        name = f"_flows_in_{''.join(char if char.isalnum() else '_' for char in name)}"  # takes no module's place
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the flow's own module must be found by its name while it's pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _only(module: types.ModuleType, place: str, kind: type[T], what: str) -> T:
    names = _names(module, kind)
    if len(names) == 1:
        return typing.cast(T, getattr(module, names[0]))
    if not names:
        raise InvalidInput(f"{what}: {place} holds no {kind.__name__}")
    raise InvalidInput(f"{what}: {place} holds several; say which: {', '.join(f'{place}:{name}' for name in names)}")


def _names(module: types.ModuleType, kind: type[Any]) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, kind) and not name.startswith("_")]


def _instead(module: types.ModuleType, kind: type[Any]) -> str:
    names = _names(module, kind)
    return f"; it has {', '.join(names)}" if names else ""


def _perhaps_file(place: str) -> str:
    return f"; did you mean {place}.py?" if Path(f"{place}.py").is_file() else ""


def _where(error: BaseException) -> str:
    """The line of user code that raised, which the message alone seldom tells."""
    step = error.__traceback__
    last = None
    while step is not None:
        last, step = step, step.tb_next
    if last is None or "importlib" in last.tb_frame.f_code.co_filename:
        return ""
    return f" (in {last.tb_frame.f_code.co_filename}, line {last.tb_lineno})"


def parameters(function: Callable[..., Any], pairs: Iterable[str]) -> dict[str, Any]:
    """Return the parameters that ``-p key=value`` pairs mean: text where the annotation is ``str``, else JSON.

    Raises:
        InvalidParameters: a pair has no ``=``, repeats a key, names no parameter, or its value isn't the JSON it
            should be.
    """
    expected, taken = _annotations(function), _taken(function)
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InvalidParameters(f"-p {pair}: write -p name=value")
        if key in found:
            raise InvalidParameters(f"-p {key}: is given twice (a list is one JSON value: -p '{key}=[1, 2]')")
        if taken is not None and key not in taken:
            raise InvalidParameters(f"-p {key}: the flow has no such parameter; it takes {', '.join(taken) or 'none'}")
        found[key] = text if _is_text(expected.get(key)) else _json(key, text, expected)
    return found


def _json(key: str, text: str, expected: Mapping[str, Any]) -> Any:
    try:
        return read_document(text)
    except Twice as error:
        raise InvalidParameters(f"-p {key}: {error}") from None
    except (ValueError, RecursionError):
        meant = _name(expected[key]) if key in expected else ""
        rule = f"expected JSON for {meant}" if meant else "expected JSON, as it has no annotation"
        raise InvalidParameters(f"-p {key}: {shown(text)} is not JSON; {rule} ({_hint(key, text, meant)})") from None


def _hint(key: str, text: str, meant: str) -> str:
    guess = {"true": "true", "false": "false", "none": "null", "yes": "true", "no": "false"}.get(text.lower())
    if guess:
        return f"write -p {key}={guess}"
    if meant:
        return "a number is written as it is, a list as [1, 2], an object as {...}"
    example = json.dumps(text if len(text) <= LONGEST else "...")
    return f"for text write -p '{key}={example}'"


def _taken(function: Callable[..., Any]) -> list[str] | None:
    """Names of the parameters that can be given by name; None if any name will do."""
    kinds = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in kinds):
        return None
    return [one.name for one in kinds if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by parameter; those of ``**kwargs`` don't count. Text annotations are kept where they don't open."""
    plain = {
        name: parameter.annotation
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is not inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    opened: dict[str, Any] = {}
    for name, annotation in plain.items():
        opened[name] = _open(function, annotation)
    return opened


def _open(function: Callable[..., Any], annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    space = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": annotation}), space)["it"]
    except Exception:
        return annotation  # a name known to type checkers alone


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
