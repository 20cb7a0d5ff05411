"""Completion by the shell: ids of runs, flows, environments, labels, tags, backends. Used by commands only.

A server that doesn't answer at once, or anything else that is wrong, completes nothing: the shell shows no errors.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

#: Newest runs that are proposed, and looked through for names.
_MOST = 50

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completer(propose: Callable[[click.Context, str], Iterable[CompletionItem]]) -> Completer:
    """Return a function for click's ``shell_complete``."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        items: list[CompletionItem] = []
        with suppress(Exception):  # whatever it is: a person who presses Tab gets nothing
            for item in propose(ctx, incomplete):
                if str(item.value).startswith(incomplete):
                    items.append(item)
        return items

    return complete


def _recent(ctx: click.Context) -> list[Any]:
    from dispatcher.cli.common import GlobalOptions
    from dispatcher.records.query import Query

    with ctx.find_root().ensure_object(GlobalOptions).client() as client:
        return list(client.records.runs.find(Query(), limit=_MOST))


def _runs(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    from dispatcher.cli.short_ids import shortened

    yield CompletionItem("@last", help="the newest run")
    records = _recent(ctx)
    short = shortened([record.id for record in records], ())
    for record in records:
        text = f"{record.spec.options.name or record.spec.flow} {record.state}"
        yield CompletionItem(
            record.id if incomplete and record.id.startswith(incomplete) else short[record.id], help=text
        )


def _words(of: Callable[[Any], Iterable[str]]) -> Completer:
    def propose(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
        yield from map(CompletionItem, sorted({word for record in _recent(ctx) for word in of(record)}))

    return _completer(propose)


def _environments(_ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    from dispatcher.environments.named import names

    yield from map(CompletionItem, names())
    yield CompletionItem("", type="file")


def _backends(_ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    from dispatcher import registry

    yield from map(CompletionItem, registry.BACKENDS.names())


def _targets(_ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Propose Python files, and behind a colon the flows in one, which isn't imported."""
    file, colon, _ = incomplete.partition(":")
    if colon:
        for name in _flows_in(Path(file)):
            yield CompletionItem(f"{file}:{name}")
        return
    folder = Path(incomplete).parent
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.is_file():
            yield CompletionItem(str(path))
        elif path.is_dir() and not path.name.startswith((".", "__")):
            yield CompletionItem(f"{path}/")


def _flows_in(path: Path) -> Iterator[str]:
    """Yield the functions of a file that are decorated by something called flow."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            words = {
                part.id if isinstance(part, ast.Name) else part.attr
                for decorator in node.decorator_list
                for part in ast.walk(decorator)
                if isinstance(part, ast.Name | ast.Attribute)
            }
            if "flow" in words:
                yield node.name


runs = _completer(_runs)
flows = _words(lambda record: [record.spec.flow])
labels = _words(lambda record: record.spec.labels)
tags = _words(lambda record: record.spec.tags)
environments = _completer(_environments)
backends = _completer(_backends)
targets = _completer(_targets)
