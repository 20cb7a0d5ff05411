"""The list of places in this project that open pickles. A new place fails here until its reason is added."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.broker.celery_app import make_app
from dispatcher.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dispatcher", "backends", "workers")

#: Names of functions and classes that open bytes by running the code in them, ours included.
OPENERS = frozenset({
    "unpack", "from_value", "unpack_flow", "open_result",
    "Unpickler", "_Unpickler", "find_class", "persistent_load", "read_pickle",
})  # fmt: skip

#: The same for names that count only if they belong to one of these modules or classes.
METHODS = {
    "loads": {"pickle", "_pickle", "cloudpickle", "marshal", "dill", "joblib"},
    "load": {"pickle", "_pickle", "cloudpickle", "marshal", "dill", "joblib", "yaml", "class_loading", "Flow"},
    "load_all": {"yaml"},
    "full_load": {"yaml"},
    "unsafe_load": {"yaml"},
    "open": {"shelve"},
}

#: Modules that open pickles, or send pickles for others to open. Their importers are listed below.
MODULES = frozenset({
    "pickle", "_pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "multiprocessing", "billiard",
    "concurrent.futures",
})  # fmt: skip

#: Each place as file, function and opener, and why it is safe.
ALLOWED = {
    # The only place that runs a pickle, and the functions below it.
    (
        "dispatcher/serialization/pickles.py",
        "unpack",
        "class_loading.load",
    ): "the only entry: its callers are listed here",
    ("dispatcher/serialization/class_loading.py", "load", "pickle.loads"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "_Unpickler", "Unpickler"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "ClassFinder.find_class", "find_class"): "called by unpack alone",
    ("dispatcher/serialization/class_loading.py", "load", "_Unpickler"): "called by unpack alone",
    (
        "dispatcher/serialization/unreadable_item.py",
        "_SlowUnpickler",
        "_Unpickler",
    ): "called by unpack alone, after opening failed",
    # Values: a digest in a verified spec, or a seal.
    (
        "dispatcher/serialization/values.py",
        "from_value",
        "unpack",
    ): "after digest and seal, or the spec's digest, were checked",
    ("dispatcher/runner/loading.py", "Loader._parameters", "from_value"): "the verified spec holds their digest",
    ("dispatcher/client/results.py", "_opened", "from_value"): "who asked for the result opens it, unless plain",
    ("dispatcher/cli/lookup.py", "result_of", "from_value"): "JSON alone, and without a key",
    # Compiled code of a bundle.
    (
        "dispatcher/code/bytecode.py",
        "BytecodeStore.get",
        "marshal.loads",
    ): "after a code of authentication, whose key only this worker's processes have",
    # Code: named by its digest in the verified spec, or part of it.
    ("dispatcher/flows/flow.py", "unpack_flow", "unpack"): "its callers are listed here",
    ("dispatcher/flows/flow.py", "Flow.load", "unpack_flow"): "a user's own call, whose docs say so",
    ("dispatcher/storage/redis.py", "RedisStorage.get_flow", "unpack_flow"): "the location is the digest",
    ("dispatcher/storage/local.py", "LocalStorage.get_flow", "unpack_flow"): "the location holds the digest",
    ("dispatcher/storage/docker/storage.py", "DockerStorage.get_flow", "unpack_flow"): "the location holds the digest",
    ("dispatcher/storage/s3/storage.py", "S3Storage.get_flow", "unpack_flow"): "the location holds the digest",
    ("dispatcher/environments/callbacks.py", "Callback.function", "unpack"): "the verified spec holds it",
    ("dispatcher/runner/direct.py", "FileStorage.get_flow", "unpack_flow"): "a file of the container's own image",
    (
        "dispatcher/flows/main_module.py",
        "restore",
        "unpack",
    ): "a file that the flow's own process wrote for its children",
    # Programs that run a flow directly.
    ("dispatcher/serialization/unopened.py", "open_result", "unpack"): "the caller's own program, unless plain",
    ("dispatcher/serialization/unopened.py", "_users_exception", "unpack"): "the caller's own program, unless plain",
    ("dispatcher/environments/base.py", "Environment.execute", "open_result"): "the caller's own program, unless plain",
    ("dispatcher/storage/answer.py", "Runner.__call__", "open_result"): "the caller's own program, unless plain",
    # Tasks on a Dask cluster, which trusts its client.
    (
        "dispatcher/executors/task_arguments.py",
        "unpack_value",
        "unpack",
    ): "in a Dask worker, from the flow that it works for",
}

IMPORTS = {
    ("dispatcher/code/bytecode.py", "marshal"),
    ("dispatcher/executors/spawned_nodes.py", "multiprocessing"),
    ("dispatcher/serialization/pickles.py", "cloudpickle"),
    ("dispatcher/serialization/class_loading.py", "pickle"),
    ("dispatcher/serialization/unreadable_item.py", "pickle"),
    ("dispatcher/serialization/class_loading.py", "cloudpickle"),
    ("dispatcher/serialization/pickles.py", "pickle"),  # its errors, and instructions of objects that it pickles
    ("dispatcher/serialization/by_value.py", "cloudpickle"),  # its register of modules
    ("dispatcher/serialization/main_files.py", "cloudpickle"),  # its way of pickling functions
    ("dispatcher/serialization/skeletons.py", "cloudpickle"),  # its ids of classes
    ("dispatcher/serialization/enum_classes.py", "cloudpickle"),  # its ids of classes
    ("dispatcher/serialization/reducers.py", "cloudpickle"),  # its way of pickling functions
    ("dispatcher/code/imports.py", "marshal"),  # compares code; opens nothing
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
    ("dispatcher/client/pending.py", "concurrent.futures"),
    ("dispatcher/client/run.py", "concurrent.futures"),
    ("dispatcher/client/waiting.py", "concurrent.futures"),
}

Place = tuple[str, str, str]


class OpenerUses(ast.NodeVisitor):
    """Collects the uses of openers, each with the functions around it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.scopes: list[str] = []
        self.uses: list[Place] = []
        self.imports: set[tuple[str, str]] = set()
        self.names: dict[str, str] = {}  # local name → the opener

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.scopes.append(node.name)
                self.generic_visit(node)
                self.scopes.pop()
                return
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.Name() if isinstance(node.ctx, ast.Load) and (node.id in OPENERS or node.id in self.names):
                self._add(self.names.get(node.id, node.id))
            case ast.Attribute():
                self._attribute(node)
        self.generic_visit(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = getattr(node, "module", None) or ""
        for alias in node.names:
            name = f"{module}.{alias.name}".lstrip(".") + "."
            self.imports |= {(self.file, opening) for opening in MODULES if name.startswith(f"{opening}.")}
            if module and alias.name in OPENERS:
                self.names[alias.asname or alias.name] = alias.name

    def _attribute(self, node: ast.Attribute) -> None:
        holder = ast.unparse(node.value).rpartition(".")[2]
        if node.attr in OPENERS:
            self._add(node.attr)
        elif holder in METHODS.get(node.attr, ()):
            self._add(f"{holder}.{node.attr}")

    def _add(self, name: str) -> None:
        self.uses.append((self.file, ".".join(self.scopes), name))


def uses_in(text: str, file: str) -> OpenerUses:
    visitor = OpenerUses(file)
    visitor.visit(ast.parse(text))
    return visitor


def product_files() -> Iterator[OpenerUses]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield uses_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))


def test_pickles_are_opened_in_these_places_alone() -> None:
    places = {place for file in product_files() for place in file.uses}
    assert places - set(ALLOWED) == set(), "a new place that opens a pickle: whose is it, and what was checked before?"
    assert set(ALLOWED) - places == set(), "nothing is opened there any more"


def test_modules_that_open_pickles_are_imported_in_these_places_alone() -> None:
    assert {place for file in product_files() for place in file.imports} == IMPORTS


def test_a_worker_opens_no_result_and_no_exception() -> None:
    """Workers pass them on in the record, pool processes in the answer."""
    of_workers = [
        place for file in product_files() for place in file.uses if place[0].startswith(("workers/", "backends/"))
    ]
    assert of_workers == []
    of_runners = {place for file in product_files() for place in file.uses if place[0].startswith("dispatcher/runner/")}
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
        "open_flow(data, subject='x')",
        "flow.unpack_flow(data, subject='x')",
        "payload_unpack(data)",
    ],
)
def test_each_use_is_recognized(line: str) -> None:
    text = f"""
from dispatcher.flows.flow import unpack_flow as open_flow
from dispatcher.serialization import unpack as payload_unpack
class A:
    def f(self):
        return {line}
"""
    uses = uses_in(text, "x.py").uses
    assert [(file, function) for file, function, _ in uses] == [("x.py", "A.f")]


@pytest.mark.parametrize(
    "line", ["json.loads(data)", "yaml.safe_load(text)", "struct.unpack_from(a)", "path.open()", "opened.next()"]
)
def test_other_calls_do_not_count(line: str) -> None:
    assert uses_in(line, "x.py").uses == []


def test_messages_are_json_alone() -> None:
    app = make_app(Settings.load(url="redis://127.0.0.1:1/0"), "instance")
    assert app.conf.accept_content == app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == app.conf.event_serializer == "json"
