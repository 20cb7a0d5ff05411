"""Random small projects: modules and packages that import each other in every form, and a flow that uses them all.

Each module has a function ``value`` that adds up what its imports give, a number of levels deep, so that cycles end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

#: Forms of an import. The target's last name is ``{last}``, its parent ``{parent}``, and ``{relative}`` leads there.
_ABSOLUTE = ("import {name} as m", "import_module", "__import__", "conditional", "guarded", "type_checking")
_OF_PACKAGE = ("from {parent} import {last} as m", "from {relative} import {last} as m")
_PLACES = ("top", "function", "class", "nested")


@dataclass(frozen=True)
class Link:
    """An import of one module by another."""

    target: str
    form: str
    place: str

    def statement(self, importer: str, *, is_package: bool) -> str:
        """The statement that binds ``m`` to the target."""
        parent, _, last = self.target.rpartition(".")
        names = {"name": self.target, "parent": parent, "last": last}
        match self.form:
            case "import_module":
                return f"import importlib; m = importlib.import_module({self.target!r})"
            case "__import__":
                return f"m = __import__({self.target!r}, fromlist=['value'])"
            case "conditional":
                return f"m = None\nif m is None:\n    import {self.target} as m"
            case "guarded":
                return f"try:\n    import no_such_module as m\nexcept ImportError:\n    import {self.target} as m"
            case "type_checking":
                return f"import typing\nif not typing.TYPE_CHECKING:\n    import {self.target} as m"
        if "{relative}" in self.form:
            names["relative"] = _relative(importer, parent, is_package=is_package)
        return self.form.format(**names)


@dataclass(frozen=True)
class Project:
    """A project as files.

    Attributes:
        files: by name.
        start: the module of the flow.
    """

    files: Mapping[str, str]
    start: str


@st.composite
def projects(draw: st.DrawFn) -> Project:
    """Draw a project of a few packages and modules."""
    packages = ["", *draw(st.lists(st.sampled_from(["pk", "pk.sub", "pk.sub.deep", "ns"]), unique=True, max_size=4))]
    packages = sorted({part for package in packages for part in _parents(package)})
    modules = {
        f"{package}.{name}".lstrip("."): False
        for package in packages
        for name in draw(st.lists(st.sampled_from(["alpha", "beta", "gamma"]), unique=True, min_size=1, max_size=3))
    }
    regular = [package for package in packages if package and package != "ns"]
    modules |= dict.fromkeys(regular, True)
    names = sorted(modules)
    files = {}
    for number, (name, is_package) in enumerate(sorted(modules.items())):
        links = [_link(draw, name, names, is_package=is_package) for _ in range(draw(st.integers(0, 3)))]
        data = draw(st.booleans())
        source = _source(number, name, links, is_package=is_package, data=data, exported=draw(st.booleans()))
        directory = name.replace(".", "/") if is_package else name.rpartition(".")[0].replace(".", "/")
        prefix = f"{directory}/" if directory else ""
        files[f"{name.replace('.', '/')}{'/__init__' if is_package else ''}.py"] = source
        if data:
            files[f"{prefix}{name.rpartition('.')[2]}.txt"] = "x" * (number + 1)
    return Project(files, draw(st.sampled_from(names)))


def _link(draw: st.DrawFn, importer: str, names: list[str], *, is_package: bool) -> Link:
    target = draw(st.sampled_from(names))
    place = draw(st.sampled_from(_PLACES))
    forms = list(_ABSOLUTE)
    parent = target.rpartition(".")[0]
    if parent:
        forms.append(_OF_PACKAGE[0])
        if _relative(importer, parent, is_package=is_package):
            forms.append(_OF_PACKAGE[1])
    return Link(target, draw(st.sampled_from(forms)), place)


def _source(number: int, name: str, links: list[Link], *, is_package: bool, data: bool, exported: bool) -> str:
    lines = ["__all__ = ['value', 'KIND']" if exported else "", f"class KIND:\n    number = {number}"]
    calls = [f"    total = {2 ** (number % 20)}"]
    if data:
        last = name.rpartition(".")[2]
        calls.append(f"    total += len((pathlib.Path(__file__).parent / '{last}.txt').read_text())")
        lines.append("import pathlib")
    for index, link in enumerate(links):
        statement = link.statement(name, is_package=is_package)
        indented = statement.replace("\n", "\n    ")
        if link.place == "top":  # bound late, since modules that import each other are half made then
            lines.append(f"def load_{index}():\n    return m_{index}")
            lines.append(f"{statement}\nm_{index} = m")
        elif link.place == "function":
            lines.append(f"def load_{index}():\n    {indented}\n    return m")
        elif link.place == "class":
            lines.append(f"class Holder_{index}:\n    {indented}\ndef load_{index}():\n    return Holder_{index}.m")
        else:
            nested = statement.replace("\n", "\n        ")
            body = f"    def inner():\n        {nested}\n        return m\n    return inner()"
            lines.append(f"def load_{index}():\n{body}")
        calls.append(f"    if depth: total += load_{index}().value(depth - 1) + load_{index}().KIND.number")
    return "\n".join([*lines, "def value(depth):", *calls, "    return total", ""])


def _parents(package: str) -> list[str]:
    parts = package.split(".") if package else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)]


def _relative(importer: str, parent: str, *, is_package: bool) -> str:
    """The relative name of a package, seen from a module; empty if they have no package in common."""
    here = importer.split(".") if is_package else importer.split(".")[:-1]
    there = parent.split(".")
    if not here or here[0] != there[0]:
        return ""
    common = next((n for n, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
    return "." * (len(here) - common + 1) + ".".join(there[common:])
