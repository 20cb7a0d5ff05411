"""A row of the zoo: a kind of object or layout as source text, and the program that is made of many rows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

#: How an object travels.
WAYS = ("global", "parameter", "result", "closure")

#: Standings in which the flow's module is ``__main__``, whose code travels by value.
BY_VALUE = frozenset({"script", "python-m", "command", "stdin", "cells"})

#: Standings in which the flow's module is imported by its name.
BY_NAME = frozenset({"module", "package", "src"})
#: Standings in which the flow's module is in a package, so that relative imports work.
IN_PACKAGE = frozenset({"package", "src", "python-m"})
#: Standings in which the flow's module has a file.
WITH_FILE = BY_NAME | {"script", "python-m"}
EVERYWHERE = BY_NAME | BY_VALUE

_OWN_NAMES = re.compile(r"\b(VALUE|check|EXPECTED)\b")


@dataclass(frozen=True)
class Specimen:
    """A kind of object, or a layout of files.

    Attributes:
        name: an identifier.
        source: defines ``VALUE``, the object that travels, and ``check(x)``, which returns plain data. It may define
            ``EXPECTED``, in place of what ``check(VALUE)`` gives in the program. Other names are unique in the zoo.
        files: beside the flow's module, by their names from the directory on the import path.
        beside: files of the flow's own directory.
        standings: where it makes sense.
        refused: for each way that is refused, a pattern of the message.
        by_value_refused: the same, where the source is part of ``__main__``.
        ways: the ways that make sense.
        pools: whether it starts processes, which a Dask task of a thread shouldn't.
        not_on_dask: why a Dask task that is a thread of the flow's process isn't tried; empty if it is.
    """

    name: str
    source: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    beside: Mapping[str, str | bytes] = field(default_factory=dict)
    standings: frozenset[str] = EVERYWHERE
    refused: Mapping[str, str] = field(default_factory=dict)
    by_value_refused: Mapping[str, str] = field(default_factory=dict)
    ways: tuple[str, ...] = WAYS
    pools: bool = False
    not_on_dask: str = ""

    def stands_in(self, standing: str) -> bool:
        """Return True if it makes sense there."""
        return standing in self.standings

    def refusals(self, standing: str) -> Mapping[str, str]:
        """Return the ways that are refused, each with the pattern of its message."""
        return {**self.refused, **(self.by_value_refused if standing in BY_VALUE else {})}

    @property
    def text(self) -> str:
        """Its definitions and its flows, with names of their own."""
        source = _OWN_NAMES.sub(rf"\1_{self.name}", textwrap.dedent(self.source).strip())
        return f"{source}\n\n{_FLOWS.format(name=self.name)}"


_FLOWS = """
@flow(timeout=60)
def global_{name}(): return check_{name}(VALUE_{name})

@flow(timeout=60)
def parameter_{name}(x): return check_{name}(x)

@flow
def result_{name}(): return VALUE_{name}

def closing_{name}(x):
    @flow
    def closure_{name}(): return check_{name}(x)
    return closure_{name}

def dask_closing_{name}(x):
    @task
    def dask_closure_{name}(): return check_{name}(x)
    return dask_closure_{name}

@task
def dask_global_{name}(): return check_{name}(VALUE_{name})
@task
def dask_parameter_{name}(x): return check_{name}(x)
@task
def dask_result_{name}(): return VALUE_{name}
"""

#: What every program of the zoo imports.
_HEAD = """
import abc, asyncio, collections, concurrent.futures, contextlib, contextvars, dataclasses, datetime, enum, functools
import inspect, itertools, logging, multiprocessing, operator, os, pathlib, pickle, queue, random, re, string, struct
import sys, tempfile, threading, types, typing, weakref, zoneinfo
import numpy
from dispatcher import flow, gather, task
"""


def definitions(specimens: Iterable[Specimen], together: Container[str]) -> str:
    """Return the source of a module with all of some specimens; some are also tried together in one run."""
    all_at_once = _all_at_once(specimen for specimen in specimens if specimen.name in together)
    return "\n".join([_HEAD, *(specimen.text for specimen in specimens), all_at_once])


def _all_at_once(specimens: Iterable[Specimen]) -> str:
    """Flows that try many specimens in one run: in a container, or by tasks of a Dask cluster."""
    rows: dict[str, list[str]] = {name: [] for name in ("CHECKS", "VALUES", "TASKS")}
    for specimen in specimens:
        name = specimen.name
        rows["CHECKS"].append(f"{name}=check_{name}")
        rows["VALUES"].append(f"{name}=lambda: VALUE_{name}")
        tasks = f"(dask_global_{name}, dask_parameter_{name}, dask_result_{name}, dask_closing_{name})"
        rows["TASKS"].append(f"{name}={tasks}")
    tables = "\n".join(f"{table} = dict(\n    " + ",\n    ".join(lines) + ",\n)" for table, lines in rows.items())
    return f"{tables}\n{_ALL_FLOWS}"


_ALL_FLOWS = '''
def tried(function, *arguments):
    """The outcome of a call: what it returned, or what it raised."""
    try:
        return "returned", function(*arguments)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"

def all_closing(values):
    @flow
    def all_closure(): return {name: tried(CHECKS[name], value) for name, value in values.items()}
    return all_closure

@flow
def all_global(names): return {name: tried(lambda: CHECKS[name](VALUES[name]())) for name in names}

@flow
def all_parameter(values): return {name: tried(CHECKS[name], value) for name, value in values.items()}

@flow
def all_result(names): return {name: VALUES[name]() for name in names}

def by_task(name, way):
    in_global, parameter, result, closing = TASKS[name]
    if way == "global": return gather(in_global.submit())
    if way == "parameter": return gather(parameter.submit(VALUES[name]()))
    if way == "closure": return gather(closing(VALUES[name]()).submit())
    return CHECKS[name](gather(result.submit()))

@flow
def all_tasks(cells): return [(name, way, *tried(by_task, name, way)) for name, way in cells]
'''
