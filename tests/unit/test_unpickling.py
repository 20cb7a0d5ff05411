"""Where this project opens pickles: a short list. A new place fails here until it says why it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.broker.celery_app import make_app
from dispatcher.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dispatcher", "backends", "workers")

#: What opens bytes by running what stands in them, by the last part of its name; ours too.
OPENERS = frozenset({"unpack", "from_value", "Unpickler", "_Unpickler", "find_class", "persistent_load", "read_pickle"})

#: The same, where only the module that it is of tells.
METHODS = {
    "loads": {"pickle", "_pickle", "cloudpickle", "marshal", "dill", "joblib"},
    "load": {"pickle", "_pickle", "cloudpickle", "marshal", "dill", "joblib", "yaml", "class_loading", "Flow"},
    "load_all": {"yaml"},
    "full_load": {"yaml"},
    "unsafe_load": {"yaml"},
    "open": {"shelve"},
    "opened": {"flow", "unopened"},
}

#: Functions of ours that open, by module: wherever one is imported, or in its module, its name counts.
OURS = {"dispatcher.flows.flow": "opened", "dispatcher.serialization.unopened": "opened"}

#: Modules whose use is opening, or sending what the other side opens: who imports one is named here.
MODULES = frozenset({
    "pickle", "_pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "multiprocessing", "billiard",
    "concurrent.futures",
})  # fmt: skip

#: Where it is done, and why that is safe.
ALLOWED = {
    # The one place that runs a pickle, and what it rests on.
    (
        "dispatcher/serialization/pickles.py",
        "unpack",
        "class_loading.load",
    ): "the one door: its callers are listed here",
    ("dispatcher/serialization/class_loading.py", "load", "pickle.loads"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "_Unpickler", "Unpickler"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "Finder.find_class", "find_class"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "load", "_Unpickler"): "called by unpack alone",
    (
        "dispatcher/serialization/unreadable_item.py",
        "_Slow",
        "_Unpickler",
    ): "called by unpack alone, of what it failed to open",
    # Values: a digest in a verified spec, or a seal.
    (
        "dispatcher/serialization/values.py",
        "from_value",
        "unpack",
    ): "after digest and seal, or the spec's digest, were checked",
    ("dispatcher/runner/loading.py", "Loader._parameters", "from_value"): "the verified spec holds their digest",
    ("dispatcher/client/results.py", "_opened", "from_value"): "who asked for the result opens it, unless plain",
    ("dispatcher/cli/lookup.py", "result_of", "from_value"): "JSON alone, and without a key",
    # Code: what the verified spec names by its digest, or holds.
    ("dispatcher/flows/flow.py", "opened", "unpack"): "its callers are listed here",
    ("dispatcher/flows/flow.py", "Flow.load", "opened"): "a user's own call, whose docs say so",
    ("dispatcher/storage/redis.py", "RedisStorage.get_flow", "opened"): "the location is the digest",
    ("dispatcher/storage/local.py", "LocalStorage.get_flow", "opened"): "the location holds the digest",
    ("dispatcher/storage/docker/storage.py", "DockerStorage.get_flow", "opened"): "the location holds the digest",
    ("dispatcher/environments/callbacks.py", "Callback.function", "unpack"): "it stands in the verified spec",
    ("dispatcher/runner/direct.py", "FileStorage.get_flow", "opened"): "a file of the container's own image",
    # Programs that run a flow directly.
    ("dispatcher/serialization/unopened.py", "opened", "unpack"): "the caller's own program, unless plain",
    ("dispatcher/serialization/unopened.py", "_own", "unpack"): "the caller's own program, unless plain",
    ("dispatcher/environments/base.py", "Environment.execute", "opened"): "the caller's own program, unless plain",
    ("dispatcher/storage/answer.py", "Runner.__call__", "opened"): "the caller's own program, unless plain",
    # Tasks on a Dask cluster, which trusts its client.
    ("dispatcher/executors/task_arguments.py", "opened", "unpack"): "in a Dask worker, from the flow that it works for",
}

IMPORTS = {
    ("dispatcher/serialization/pickles.py", "cloudpickle"),
    ("dispatcher/serialization/class_loading.py", "pickle"),
    ("dispatcher/serialization/unreadable_item.py", "pickle"),
    ("dispatcher/serialization/class_loading.py", "cloudpickle"),
    ("dispatcher/storage/flow_cache.py", "cloudpickle"),  # its register of modules
    ("dispatcher/storage/docker/in_image.py", "cloudpickle"),  # its version
    ("dispatcher/storage/docker/engine.py", "cloudpickle"),  # its version
    ("workers/pool/pool_process.py", "multiprocessing"),  # how a pool process looks to a flow
    ("workers/engine.py", "multiprocessing"),
    (
        "workers/pool/pool_process.py",
        "billiard",
    ),  # Celery's pool: its pipes carry pickles, from processes of the worker's own user
    ("workers/pool/celery_request.py", "billiard"),  # its exceptions
    ("dispatcher/executors/futures.py", "concurrent.futures"),  # futures without a pool
    ("dispatcher/executors/local.py", "concurrent.futures"),
    ("dispatcher/executors/dask_session.py", "concurrent.futures"),
    ("dispatcher/executors/task_arguments.py", "concurrent.futures"),
    ("dispatcher/client/watcher.py", "concurrent.futures"),
    ("dispatcher/client/run.py", "concurrent.futures"),
    ("dispatcher/client/waiting.py", "concurrent.futures"),
}

Place = tuple[str, str, str]


class Sites(ast.NodeVisitor):
    """Collects where something that opens is named, by the function around it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.around: list[str] = []
        self.found: list[Place] = []
        self.imports: set[tuple[str, str]] = set()
        module = file.removesuffix(".py").replace("/", ".")
        self.names = {OURS[module]: OURS[module]} if module in OURS else {}  # local name → what it is

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.around.append(node.name)
                self.generic_visit(node)
                self.around.pop()
                return
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.Name() if isinstance(node.ctx, ast.Load) and (node.id in OPENERS or node.id in self.names):
                self._note(self.names.get(node.id, node.id))
            case ast.Attribute():
                self._attribute(node)
        self.generic_visit(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = getattr(node, "module", None) or ""
        for alias in node.names:
            name = f"{module}.{alias.name}".lstrip(".") + "."
            self.imports |= {(self.file, opening) for opening in MODULES if name.startswith(f"{opening}.")}
            if module and (alias.name in OPENERS or OURS.get(module) == alias.name):
                self.names[alias.asname or alias.name] = alias.name

    def _attribute(self, node: ast.Attribute) -> None:
        holder = ast.unparse(node.value).rpartition(".")[2]
        if node.attr in OPENERS:
            self._note(node.attr)
        elif holder in METHODS.get(node.attr, ()):
            self._note(f"{holder}.{node.attr}")

    def _note(self, name: str) -> None:
        self.found.append((self.file, ".".join(self.around), name))


def sites(text: str, file: str) -> Sites:
    found = Sites(file)
    found.visit(ast.parse(text))
    return found


def ours() -> Iterator[Sites]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield sites(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))


def test_pickles_are_opened_in_these_places_alone() -> None:
    found = {place for one in ours() for place in one.found}
    assert found - set(ALLOWED) == set(), "a new place that opens a pickle: whose is it, and what was checked before?"
    assert set(ALLOWED) - found == set(), "nothing is opened there any more"


def test_what_opens_pickles_is_imported_in_these_places_alone() -> None:
    assert {place for one in ours() for place in one.imports} == IMPORTS


def test_a_worker_opens_no_result_and_no_exception() -> None:
    """What a run gave goes through a worker by its record, and through a pool process by its answer."""
    of_workers = [place for one in ours() for place in one.found if place[0].startswith(("workers/", "backends/"))]
    assert of_workers == []
    of_runners = {place for one in ours() for place in one.found if place[0].startswith("dispatcher/runner/")}
    assert {function for _, function, _ in of_runners} == {"Loader._parameters", "FileStorage.get_flow"}


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(data)",
        "cloudpickle.loads(data)",
        "payload.unpack(data)",
        "unpack(data)",
        "map(unpack, many)",
        "partial(from_value, key=key)",
        "pickle.Unpickler(stream).load()",
        "marshal.loads(data)",
        "yaml.load(text, Loader=loader)",
        "yaml.unsafe_load(text)",
        "shelve.open(path)",
        "Flow.load(path)",
        "opened_flow(data, what='x')",
        "flow.opened(data, what='x')",
        "payload_unpack(data)",
    ],
)
def test_each_way_is_seen(line: str) -> None:
    text = f"""
from dispatcher.flows.flow import opened as opened_flow
from dispatcher.serialization import unpack as payload_unpack
class A:
    def f(self):
        return {line}
"""
    found = sites(text, "x.py").found
    assert [(file, function) for file, function, _ in found] == [("x.py", "A.f")]


@pytest.mark.parametrize(
    "line", ["json.loads(data)", "yaml.safe_load(text)", "struct.unpack_from(a)", "path.open()", "opened.next()"]
)
def test_others_are_left_alone(line: str) -> None:
    assert sites(line, "x.py").found == []


def test_messages_are_json_alone() -> None:
    app = make_app(Settings.load(url="redis://127.0.0.1:1/0"), "instance")
    assert app.conf.accept_content == app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == app.conf.event_serializer == "json"
