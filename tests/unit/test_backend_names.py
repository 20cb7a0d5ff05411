"""A backend is named in its own folder alone: lists of the product ask the registry, and import nothing unasked."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dispatcher import Settings, registry

ROOT = Path(__file__).resolve().parents[2]

#: Files outside of a backend's folder that may name it: the model of a run knows which backends are in-process.
ELSEWHERE = {
    ("local", "dispatcher/runs/routing.py"),
    ("remote", "dispatcher/runs/routing.py"),
    ("local", "dispatcher/storage/docker/install.py"),  # /usr/local
}

#: Folders of backends that share one.
HOMES = {"dask-operator": "backends/dask_kubernetes"}

LAZY = """
import json, sys
import dispatcher
before = [name for name in sys.modules if name.startswith("backends")]
settings = dispatcher.Settings.load()
loaded = [name for name in sys.modules if name.startswith(("backends", "kubernetes"))]
namespaces = settings.kubernetes.namespaces
sdk = [name for name in sys.modules if name == "kubernetes"]
print(json.dumps([before, loaded, namespaces, sdk]))
"""


def literals(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_each_backend_is_named_in_its_folder_alone() -> None:
    names = {*registry.BACKENDS.our_names(), *registry.BACKENDS.our_names(unlisted=True)}
    assert names >= {"fake", "kubernetes", "local", "remote"}
    outside = set()
    for package in ("dispatcher", "backends", "workers"):
        for path in (ROOT / package).rglob("*.py"):
            file = str(path.relative_to(ROOT))
            outside |= {(name, file) for name in names & set(literals(path)) if not is_home(file, name)}
    assert outside == ELSEWHERE


def is_home(file: str, name: str) -> bool:
    home = HOMES.get(name, f"backends/{name.replace('-', '_')}")
    return file == f"{home}.py" or file.startswith(f"{home}/")


def test_settings_of_backends_are_imported_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [[], [], ["default"], []]


def test_a_group_is_found_by_its_class_and_by_its_name() -> None:
    from backends.kubernetes.settings import KubernetesSettings

    assert Settings.load().group(KubernetesSettings) == KubernetesSettings()
    settings = Settings.load(kubernetes={"namespaces": ["team"]})
    assert settings.group(KubernetesSettings).namespaces == ("team",)
    assert settings.but(url="redis://r/0").group(KubernetesSettings).namespaces == ("team",)
    assert Settings.load().but(kubernetes=KubernetesSettings(cluster="eu")).group(KubernetesSettings).cluster == "eu"


def test_settings_with_a_group_pickle() -> None:
    settings = Settings.load(url="redis://r/0", kubernetes={"namespaces": ["team"]})
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert again.kubernetes.namespaces == ("team",)
